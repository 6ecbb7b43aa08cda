import dataclasses
import hashlib
import http.client
import http.server
import io
import sys
import threading
import urllib.request

import pytest

from jaxcrop.errors import InputError
from jaxcrop.weights import CATALOGUE, fetch, find, published, read_manifest, state
from jaxcrop.weights import download as module
from jaxcrop.weights.download import download

CONTENT = bytes(range(256)) * 5000
OTHER = CONTENT[::-1]
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, and plays the proxy, whose requests name whole URLs.

    `server.headers` are sent with every file, `server.redirects` are answered by (target, headers);
    the connection closes after `server.break_after` bytes of the body, if set.
    """

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers["Range"]))
        if self.path in server.redirects:
            target, headers = server.redirects[self.path]
            self.answer(302, {"Location": target, "Content-Length": "0", **headers})
            return
        content = server.files.get(self.path)
        start = int((self.headers["Range"] or "bytes=0-")[len("bytes=") : -1])
        if content is None or start >= len(content):
            self.send_error(404 if content is None else 416)
            return
        length = {"Content-Length": str(len(content) - start)}
        self.answer(206 if start else 200, length | server.headers)
        self.wfile.write(content[start:][: server.break_after])

    def do_CONNECT(self):
        self.server.requests.append((self.path, None))
        self.send_error(403)

    def answer(self, code, headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("JAXCROP_OFFLINE", raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests, server.break_after = {"/file.pth": CONTENT}, [], None
    server.headers, server.redirects = {}, {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def secure(server, monkeypatch):
    """Lets https://original.invalid/ reach the server, without the encryption."""

    def https_open(self, request):
        def connect(_host, **options):
            return http.client.HTTPConnection("127.0.0.1", server.server_port, **options)

        return self.do_open(connect, request)

    monkeypatch.setattr(urllib.request.HTTPSHandler, "https_open", https_open)
    return server


def break_off(server, target, sha256=SHA256[:8], after=1_000):
    """Leave a part of `after` bytes."""
    server.break_after = after
    with pytest.raises(InputError, match=rf"file\.pth: the connection broke after {after} of 1280"):
        download(f"{server.url}/file.pth", target, sha256)
    assert not target.exists()
    server.break_after = None


def test_a_download_is_checked_and_complete(server, tmp_path, capsys):
    target = tmp_path / "cache" / "file.pth"
    download(f"{server.url}/file.pth", target, SHA256[:8])
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert capsys.readouterr().err == f"file.pth: SHA-256 {SHA256} (as published)\n"


@pytest.mark.parametrize("tag", [{}, {"ETag": '"1"'}], ids=["no tag", "tag"])
def test_a_broken_download_is_continued(server, tmp_path, tag):
    target = tmp_path / "file.pth"
    server.headers = tag
    break_off(server, target)
    download(f"{server.url}/file.pth", target, SHA256[:8])
    assert target.read_bytes() == CONTENT
    assert server.requests[-1] == ("/file.pth", "bytes=1000-")
    assert list(tmp_path.iterdir()) == [target]


def test_a_part_of_a_file_that_changed_is_not_continued(server, tmp_path):
    target = tmp_path / "file.pth"
    server.headers = {"ETag": '"1"'}
    break_off(server, target, sha256="")
    server.headers, server.files = {"ETag": '"2"'}, {"/file.pth": OTHER}
    download(f"{server.url}/file.pth", target, "")
    assert target.read_bytes() == OTHER
    assert server.requests[-2:] == [("/file.pth", "bytes=1000-"), ("/file.pth", None)]


def test_a_part_that_nothing_vouches_for_is_not_continued(server, tmp_path):
    """Neither an ETag nor a hash: the file may have changed unseen."""
    target = tmp_path / "file.pth"
    break_off(server, target, sha256="")
    server.files = {"/file.pth": OTHER}
    download(f"{server.url}/file.pth", target, "")
    assert target.read_bytes() == OTHER


def test_a_complete_part_that_was_never_checked_is_fetched_again(server, tmp_path):
    (tmp_path / "file.pth.part").write_bytes(b"x" * len(CONTENT))
    download(f"{server.url}/file.pth", tmp_path / "file.pth", SHA256[:8])
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing(server, tmp_path):
    with pytest.raises(InputError, match=rf"was published: its SHA-256 is {SHA256}, not 00000000"):
        download(f"{server.url}/file.pth", tmp_path / "file.pth", "00000000")
    assert list(tmp_path.iterdir()) == []


def test_an_announced_hash_is_checked_where_none_is_published(server, tmp_path, capsys):
    """Hugging Face announces it where it redirects to its storage."""
    target = tmp_path / "file.pth"
    announce = {"X-Linked-ETag": f'"{SHA256}"'}
    server.redirects = {"/main/file.pth": (f"{server.url}/file.pth", announce)}
    download(f"{server.url}/main/file.pth", target, "")
    assert target.read_bytes() == CONTENT
    assert f"SHA-256 {SHA256} (as announced)" in capsys.readouterr().err
    target.unlink()

    server.files = {"/file.pth": OTHER}
    with pytest.raises(InputError, match=rf"was announced: its SHA-256 is .*, not {SHA256};"):
        download(f"{server.url}/main/file.pth", target, "")
    assert list(tmp_path.iterdir()) == []


def test_only_a_sha256_counts_as_announced(server, tmp_path, capsys):
    server.headers = {"X-Linked-ETag": '"0123abcd-5"'}  # not of large files
    download(f"{server.url}/file.pth", tmp_path / "file.pth", "")
    assert f"SHA-256 {SHA256} (not published)" in capsys.readouterr().err


def test_refused_and_impossible_downloads_name_the_url(server, tmp_path):
    with pytest.raises(InputError, match=r"/absent\.pth: the server answers 404"):
        download(f"{server.url}/absent.pth", tmp_path / "file.pth", SHA256[:8])
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:1/x: .*refused.*JAXCROP_MIRROR"):
        download("http://127.0.0.1:1/x", tmp_path / "file.pth", SHA256[:8])
    with pytest.raises(InputError, match="only http and https"):
        download((tmp_path / "x").as_uri(), tmp_path / "file.pth", SHA256[:8])
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_stays_secure(secure, tmp_path):
    secure.redirects = {
        "/up": ("https://original.invalid/file.pth", {}),
        "/down": (f"{secure.url}/file.pth", {}),
        "/file": ((tmp_path / "secret").as_uri(), {}),
    }
    download("https://original.invalid/up", tmp_path / "file.pth", SHA256[:8])
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    count = len(secure.requests)
    with pytest.raises(InputError, match=r"/down: it is redirected to http://.* not secure"):
        download("https://original.invalid/down", tmp_path / "other.pth", SHA256[:8])
    with pytest.raises(InputError, match=r"original\.invalid/file: "):
        download("https://original.invalid/file", tmp_path / "other.pth", SHA256[:8])
    assert len(secure.requests) == count + 2
    assert not (tmp_path / "other.pth").exists()


def test_the_mirror_replaces_scheme_and_host(server, tmp_path, monkeypatch):
    server.files = {"/mirror/models/file.pth": CONTENT}
    monkeypatch.setenv("JAXCROP_MIRROR", f"{server.url}/mirror/")
    download("https://original.invalid/models/file.pth", tmp_path / "file.pth", SHA256[:8])
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_a_proxy_is_asked_for_the_whole_url(server, tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, server.url)
    server.files = {"http://original.invalid/file.pth": CONTENT}
    download("http://original.invalid/file.pth", tmp_path / "file.pth", SHA256[:8])
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_a_proxy_carries_https_as_a_tunnel(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    with pytest.raises(InputError, match=r"https://original\.invalid/file\.pth: .*403"):
        download("https://original.invalid/file.pth", tmp_path / "file.pth", SHA256[:8])
    assert server.requests == [("original.invalid:443", None)]


def test_offline_forbids_every_download(server, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCROP_OFFLINE", "1")
    target = tmp_path / "file.pth"
    with pytest.raises(InputError, match=rf"JAXCROP_OFFLINE is set .*put the file at {target}"):
        download(f"{server.url}/file.pth", target, SHA256[:8])
    assert server.requests == []
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("JAXCROP_OFFLINE", "0")
    download(f"{server.url}/file.pth", target, SHA256[:8])


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_a_bar_until_the_end(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(module, "_BAR_INTERVAL", 0)
    monkeypatch.setattr(module, "_CHUNK", 320_000)
    monkeypatch.setenv("COLUMNS", "200")
    download(f"{server.url}/file.pth", tmp_path / "file.pth", SHA256[:8])
    bar, *_ = terminal.getvalue().split("\n")
    states = [state.removesuffix("\x1b[K") for state in bar.split("\r")[1:]]
    assert len(states) == 5  # each quarter, and the end
    assert states[0].startswith("file.pth [#####               ] 0 of 1 MB, ")
    assert states[-1].startswith("file.pth [####################] 1 of 1 MB, ")
    assert states[-1].endswith(" MB/s, 0:00 left")


def test_a_broken_bar_leaves_the_error_a_line_of_its_own(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    break_off(server, tmp_path / "file.pth")
    assert terminal.getvalue().endswith("\n")


def test_a_log_gets_lines(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "_LINE_INTERVAL", 0)
    download(f"{server.url}/file.pth", tmp_path / "file.pth", SHA256[:8])
    *lines, last = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("file.pth [") and line.endswith(" left") for line in lines)
    assert "SHA-256" in last


def test_time_left_counts_what_this_attempt_downloads():
    progress = module._Progress("x.pth", 600_000_000, 1_000_000_000)
    progress._done += 100_000_000
    text = progress._text(elapsed=50.0)
    assert text == "x.pth [##############      ] 700 of 1000 MB, 2.0 MB/s, 2:30 left"
    unknown = module._Progress("x.pth", 0, None)
    unknown._done = 5_000_000
    assert unknown._text(elapsed=2.0) == "x.pth: 5 MB, 2.5 MB/s"


def test_fetch_downloads_converts_and_is_found(server, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    import oracles

    with torch.device("meta"):
        meta = oracles.torchvision().models.resnet50().state_dict()
    weights = {
        name: torch.ones(1).as_strided(value.shape, (0,) * value.ndim)
        for name, value in meta.items()
    }
    torch.save(weights, tmp_path / "source.pth")
    content = (tmp_path / "source.pth").read_bytes()
    name = "imagenet-resnet50-v1"
    entry = dataclasses.replace(
        published(name),
        url="https://original.invalid/models/v1.pth",
        sha256=hashlib.sha256(content).hexdigest()[:8],
    )
    monkeypatch.setitem(CATALOGUE, name, entry)
    monkeypatch.setenv("JAXCROP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JAXCROP_MIRROR", server.url)

    assert (find(name), state(name)) == (None, "absent")
    with pytest.raises(InputError, match="404"):
        fetch(name)
    assert (find(name), state(name)) == (None, "absent")
    server.files = {"/models/v1.pth": content}
    server.break_after = 1000
    with pytest.raises(InputError, match="the connection broke"):
        fetch(name)
    assert (find(name), state(name)) == (None, "partial")
    server.break_after = None
    with monkeypatch.context() as patch:
        patch.setattr("weights_convert.convert.convert", lambda *_, **__: None)
        fetch(name)
    assert (find(name), state(name)) == (None, "downloaded")
    server.files = {}
    path = fetch(name)
    assert (find(name), state(name)) == (path, "converted")
    manifest, bands = read_manifest(path)
    assert (manifest["family"], manifest["licence"]) == ("imagenet", "BSD-3-Clause")
    assert bands == entry.band_input
    count = len(server.requests)
    assert fetch(name) == path
    assert len(server.requests) == count


def test_sets_of_the_same_file_name_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCROP_CACHE", str(tmp_path))
    paths = [module._download_path(entry) for entry in CATALOGUE.values()]
    assert len(set(paths)) == len(paths)
    with pytest.raises(InputError, match="no published weights are called x"):
        state("x")
