import dataclasses
import hashlib
import http.server
import threading

import pytest

from jaxcrop.errors import InputError
from jaxcrop.weights import CATALOGUE, DEFAULT, fetch, find, published, read_manifest
from jaxcrop.weights.download import download

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`; closes after `server.break_after` bytes of the body, if set."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers["Range"]))
        content = self.server.files.get(self.path)
        start = int((self.headers["Range"] or "bytes=0-")[len("bytes=") : -1])
        if content is None or start >= len(content):
            self.send_error(404 if content is None else 416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.server.break_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests, server.break_after = {"/file.pth": CONTENT}, [], None
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_download_is_checked_and_complete(server, tmp_path):
    target = tmp_path / "cache" / "file.pth"
    download(f"{server.url}/file.pth", target, SHA256[:8])
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_a_broken_download_is_continued(server, tmp_path):
    target = tmp_path / "file.pth"
    server.break_after = 1_000
    with pytest.raises(InputError, match=r"file\.pth: the connection broke after 1000 of 1280000"):
        download(f"{server.url}/file.pth", target, SHA256[:8])
    assert not target.exists()
    server.break_after = None
    download(f"{server.url}/file.pth", target, SHA256[:8])
    assert target.read_bytes() == CONTENT
    assert server.requests[-1] == ("/file.pth", "bytes=1000-")


def test_a_complete_part_that_was_never_checked_is_fetched_again(server, tmp_path):
    (tmp_path / "file.pth.part").write_bytes(b"x" * len(CONTENT))
    download(f"{server.url}/file.pth", tmp_path / "file.pth", SHA256[:8])
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing(server, tmp_path):
    with pytest.raises(InputError, match=rf"SHA-256 is {SHA256}, not 00000000"):
        download(f"{server.url}/file.pth", tmp_path / "file.pth", "00000000")
    assert list(tmp_path.iterdir()) == []


def test_refused_and_impossible_downloads_name_the_url(server, tmp_path):
    with pytest.raises(InputError, match=r"/absent\.pth: the server answers 404"):
        download(f"{server.url}/absent.pth", tmp_path / "file.pth", SHA256[:8])
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:1/x: .*refused.*JAXCROP_MIRROR"):
        download("http://127.0.0.1:1/x", tmp_path / "file.pth", SHA256[:8])
    with pytest.raises(InputError, match="only http and https"):
        download((tmp_path / "x").as_uri(), tmp_path / "file.pth", SHA256[:8])
    assert list(tmp_path.iterdir()) == []


def test_the_mirror_replaces_scheme_and_host(server, tmp_path, monkeypatch):
    server.files = {"/mirror/models/file.pth": CONTENT}
    monkeypatch.setenv("JAXCROP_MIRROR", f"{server.url}/mirror/")
    download("https://original.invalid/models/file.pth", tmp_path / "file.pth", SHA256[:8])
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_fetch_downloads_converts_and_is_found(server, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    import oracles

    with torch.device("meta"):
        meta = oracles.torchvision().models.resnet50().state_dict()
    state = {
        name: torch.ones(1).as_strided(value.shape, (0,) * value.ndim)
        for name, value in meta.items()
    }
    torch.save(state, tmp_path / "source.pth")
    content = (tmp_path / "source.pth").read_bytes()
    name = DEFAULT["imagenet"]
    entry = dataclasses.replace(
        published(name),
        url="https://original.invalid/models/v1.pth",
        sha256=hashlib.sha256(content).hexdigest()[:8],
    )
    monkeypatch.setitem(CATALOGUE, name, entry)
    monkeypatch.setenv("JAXCROP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JAXCROP_MIRROR", server.url)

    assert find("imagenet") is None
    with pytest.raises(InputError, match="404"):
        fetch(name)
    assert find("imagenet") is None
    server.files = {"/models/v1.pth": content}
    path = fetch(name)
    assert find("imagenet") == path
    manifest, bands = read_manifest(path)
    assert (manifest["family"], manifest["licence"]) == ("imagenet", "BSD-3-Clause")
    assert bands == entry.band_input
    count = len(server.requests)
    assert fetch(name) == path
    assert len(server.requests) == count
