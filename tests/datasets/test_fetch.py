"""`fetch` from a server that the test makes, through the real TFDS download manager."""

import csv
import hashlib
import http.server
import io
import json
import subprocess
import threading
import zipfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from jaxcrop_datasets import fetch as module
from tensorflow_datasets.core.download.checksums import load_url_infos

from jaxcrop.data.build import builder_class, dataset_names
from jaxcrop.errors import InputError
from weights_convert.originals import import_torchvision


def fetch(dataset, *arguments, **options):
    module.fetch(builder_class(dataset), *arguments, **options)


CONTENT = bytes(range(256)) * 40
RASTER_URL = "https://provider.invalid/maps/map_2021.tif"
API = "/api/datasets/torchgeo/harmonized_global_crops/tree/main/"
FILES = "/datasets/torchgeo/harmonized_global_crops/resolve/main/"
CHIPS = "sentinel2_subsample_1000/sentinel2_sas_2021_subsampled"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, and lists those below a folder as the hub does, two on a page."""

    def do_GET(self):
        server, url = self.server, urlsplit(self.path)
        server.requests.append(url.path)
        start = int((self.headers["Range"] or "bytes=0-")[len("bytes=") : -1])
        server.starts.append(start)
        if url.path.startswith(API):
            self.list_folder(url.path.removeprefix(API), int(parse_qs(url.query).get("at", [0])[0]))
        elif url.path in server.files:
            self.answer(206 if start else 200, server.files[url.path][start:], {"ETag": '"1"'})
        else:
            self.answer(404, b"")

    def list_folder(self, folder, at):
        prefix = FILES + folder + "/"
        names = sorted(name for name in self.server.files if name.startswith(prefix))
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder}] + [
            self.server.altered({
                "type": "file", "path": name.removeprefix(FILES), "size": len(content),
                "oid": "0" * 40, "lfs": {"oid": hashlib.sha256(content).hexdigest()},
            })
            for name in names
            for content in [self.server.files[name]]
        ]  # fmt: skip
        # The hub's own address, as it sends: only the mirror is there.
        more = f'<https://huggingface.co{API}{folder}?recursive=true&at={at + 2}>; rel="next"'
        link = {"Link": more} if at + 2 < len(entries) else {}
        self.answer(200, json.dumps(entries[at : at + 2]).encode(), link)

    def answer(self, code, content, headers=None):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: self.server.break_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests, server.starts, server.break_after = {}, [], [], None
    server.altered = lambda entry: entry
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("JAXCROP_OFFLINE", raising=False)
    monkeypatch.setenv("JAXCROP_MIRROR", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def sources(monkeypatch, tmp_path):
    """Writes sources.csv of `sas`, in a folder of its own that stands for the package's."""

    def write(*rows, checksums=""):
        folder = tmp_path / "package" / "sas"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sources.csv").write_text("\n".join(["name,file,url,md5", *rows]) + "\n")
        (folder / "checksums.tsv").write_text(checksums)
        monkeypatch.setattr(module, "__file__", str(folder.parent / "fetch.py"))

    return write


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def zipped(files: dict[str, bytes], change=lambda member: member) -> bytes:
    with zipfile.ZipFile(archive := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            change(member)
            file.writestr(member, content)
    return archive.getvalue()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_year_of_the_study_is_fetched_verified_and_remembered(server, sources, tmp_path):
    sources(f"2022,map_2022.tif,{RASTER_URL}2,", f"2021,map_2021.tif,{RASTER_URL},{md5(CONTENT)}")
    server.files = {"/maps/map_2021.tif": CONTENT}
    fetch("sas", tmp_path)
    assert names_in(tmp_path / "labels") == ["map_2021.tif"]
    assert (tmp_path / "labels" / "map_2021.tif").read_bytes() == CONTENT
    # TFDS's own reader of checksums, keyed by the provider's address whatever the mirror
    (info,) = load_url_infos(tmp_path / "checksums.tsv").items()
    assert info[0] == RASTER_URL
    assert (info[1].size, info[1].checksum) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert server.requests == ["/maps/map_2021.tif"]

    fetch("sas", tmp_path)
    assert server.requests == ["/maps/map_2021.tif"]  # from TFDS's cache


def test_what_arrived_once_must_arrive_again(server, sources, tmp_path):
    """No MD5 is known; the checksum that the first fetch recorded tells another file."""
    sources(f"2021,map_2021.tif,{RASTER_URL},")
    server.files = {"/maps/map_2021.tif": CONTENT}
    fetch("sas", tmp_path)
    for path in (tmp_path / "downloads").rglob("*"):
        if path.is_file():
            path.unlink()
    server.files = {"/maps/map_2021.tif": CONTENT[::-1]}
    with pytest.raises(InputError, match=r"map_2021\.tif is not the file that was recorded"):
        fetch("sas", tmp_path)
    assert (tmp_path / "labels" / "map_2021.tif").read_bytes() == CONTENT
    assert not [path for path in (tmp_path / "downloads").rglob("*") if path.is_file()]


def test_the_checksums_beside_the_builder_count(server, sources, tmp_path):
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    row = f"2021,map_2021.tif,{RASTER_URL},"
    sources(row, checksums=f"{RASTER_URL}\t{len(CONTENT)}\t{sha256}\tmap_2021.tif\n")
    server.files = {"/maps/map_2021.tif": CONTENT[::-1]}
    with pytest.raises(InputError, match=f"its SHA-256 is not {sha256}"):
        fetch("sas", tmp_path)
    server.files = {"/maps/map_2021.tif": CONTENT}
    fetch("sas", tmp_path)


def test_another_md5_leaves_nothing_to_build_from(server, sources, tmp_path):
    sources(f"2021,map_2021.tif,{RASTER_URL},{'0' * 32}")
    server.files = {"/maps/map_2021.tif": CONTENT}
    for _ in range(2):  # neither is it taken from the cache later
        with pytest.raises(InputError, match=f"its MD5 is {md5(CONTENT)}, not 0000"):
            fetch("sas", tmp_path)
    assert server.requests == ["/maps/map_2021.tif"] * 2
    assert names_in(tmp_path / "labels") == []
    assert not (tmp_path / "checksums.tsv").exists()


def test_a_file_that_changed_in_the_cache_is_refused_once_then_fetched(server, sources, tmp_path):
    sources(f"2021,map_2021.tif,{RASTER_URL},")
    server.files = {"/maps/map_2021.tif": CONTENT}
    fetch("sas", tmp_path)
    (tmp_path / "labels" / "map_2021.tif").write_bytes(b"x")  # the same file: a hard link
    with pytest.raises(InputError, match="its SHA-256 is"):
        fetch("sas", tmp_path)
    fetch("sas", tmp_path)
    assert (tmp_path / "labels" / "map_2021.tif").read_bytes() == CONTENT


def test_a_broken_download_leaves_nothing_and_names_the_url(server, sources, tmp_path):
    sources(f"2021,map_2021.tif,{RASTER_URL},")
    server.files, server.break_after = {"/maps/map_2021.tif": CONTENT}, 1000
    with pytest.raises(InputError, match=r"cannot download http://127.*/maps/map_2021\.tif: "):
        fetch("sas", tmp_path)
    server.break_after, server.files = None, {}
    with pytest.raises(InputError, match="404"):
        fetch("sas", tmp_path)
    assert not [path for path in (tmp_path / "downloads").rglob("*") if "map" in path.name]
    assert names_in(tmp_path / "labels") == []


def test_fields_are_unpacked_side_by_side(server, sources, tmp_path):
    files = {"AT/": b"", "AT/AT_2021_EC21.shp": b"shape", "AT/AT_2021_EC21.dbf": b"table"}
    archive = zipped(files | {"__MACOSX/AT/._AT_2021_EC21.shp": b"junk"})
    sources(
        f"AT_2021,AT_2021.zip,https://provider.invalid/AT_2021.zip,{md5(archive)}",
        "SI_2021,SI_2021.zip,https://provider.invalid/SI_2021.zip,",
    )
    server.files = {"/AT_2021.zip": archive, "/SI_2021.zip": zipped({"SI.shp": b"other"})}
    fetch("sas", tmp_path, ["AT_2021"])
    assert names_in(tmp_path / "labels") == ["AT_2021_EC21.dbf", "AT_2021_EC21.shp"]
    assert (tmp_path / "labels" / "AT_2021_EC21.shp").read_bytes() == b"shape"
    fetch("sas", tmp_path)  # no file is of the builder's year: all
    assert "SI.shp" in names_in(tmp_path / "labels")


def test_real_fields_are_where_labels_are_looked_for(server, sources, shared_data, tmp_path):
    """The archive of Latvia holds a folder: its 100 fields are found beside those of Slovenia."""
    from jaxcrop_datasets.polygons import layers, vector_files

    for name in ("LV_2021", "SI_2021"):
        path = shared_data / "labels" / "parcels_eu" / f"{name.lower()[:2]}_2021_{name}.zip"
        server.files[f"/{name}.zip"] = path.read_bytes()
    sources(
        "LV_2021,LV_2021.zip,https://provider.invalid/LV_2021.zip,",
        "SI_2021,SI_2021.zip,https://provider.invalid/SI_2021.zip,",
    )
    fetch("sas", tmp_path)
    found = [
        layer for path in vector_files(tmp_path / "labels") for layer in layers(path, "EC_hcat_c")
    ]
    assert [layer.name for layer in found] == ["LV_2021_EC21", "SI_2021_EC21"]
    assert [layer.crs.to_epsg() for layer in found] == [3059, 3794]


def make_link(member):
    member.external_attr = 0o120777 << 16


@pytest.mark.parametrize(
    ("archive", "fault"),
    [
        (zipped({"good.shp": b"1", "../escaped.shp": b"2"}), "escaped.shp would be written elsewh"),
        (zipped({"/escaped.shp": b"1"}), "/escaped.shp would be written elsewhere"),
        (zipped({"a\\..\\escaped.shp": b"1"}), "escaped.shp would be written elsewhere"),
        (zipped({"labels.shp": b"/etc/passwd"}, make_link), "labels.shp is a link"),
        (zipped({"a/x.shp": b"1", "b/x.shp": b"2"}), "two of its files are called x.shp"),
        (zipped({"bomb.tif": bytes(30_000_000)}), "would grow to 30 MB, over 100 times"),
        (zipped({"x.shp": CONTENT})[:-40], "cannot be unpacked"),
        (zipped({"x.shp": CONTENT})[:60] + bytes(9) + zipped({"x.shp": CONTENT})[69:], "unpacked"),
        (b"<html>not found</html>", "cannot be unpacked"),
    ],
)  # fmt: skip
def test_an_archive_writes_its_files_here_or_not_at_all(server, sources, tmp_path, archive, fault):
    sources("2021,a.zip,https://provider.invalid/a.zip,")
    server.files = {"/a.zip": archive}
    out = tmp_path / "deep" / "out"
    with pytest.raises(InputError, match=fault):
        fetch("sas", out)
    assert names_in(out / "labels") == []
    assert not list(tmp_path.rglob("escaped*"))


def test_an_archive_that_claims_less_than_it_holds_is_refused(server, sources, tmp_path):
    """The claim decides how much is read, the checksum of the member tells that it was false."""
    archive = zipped({"bomb.tif": bytes(30_000_000)})
    size = (30_000_000).to_bytes(4, "little")
    assert archive.count(size) == 2  # before the member, and in the directory at the end
    sources("2021,a.zip,https://provider.invalid/a.zip,")
    server.files = {"/a.zip": archive.replace(size, (1000).to_bytes(4, "little"))}
    with pytest.raises(InputError, match="cannot be unpacked"):
        fetch("sas", tmp_path)
    assert names_in(tmp_path / "labels") == []


def test_the_providers_files_are_those_of_torchgeo():
    """Three of its MD5 of SAS have lost a digit: these files are not compared."""
    pytest.importorskip("torch")
    import_torchvision()
    torchgeo = pytest.importorskip("torchgeo.datasets")
    cdl, nccm, sas = torchgeo.CDL, torchgeo.NCCM, torchgeo.SouthAmericaSoybean
    expected = {dataset: set() for dataset in dataset_names()}
    for dataset, name_of, url_of, md5s in (
        ("cdl", "{}_30m_cdls.zip".format, cdl.url.format, cdl.md5s),
        ("nccm", nccm.fnames.get, nccm.urls.get, nccm.md5s),
        ("sas", "SouthAmerica_Soybean_{}.tif".format, sas.url.format, sas.md5s),
    ):
        for year, md5 in md5s.items():
            known = md5 if len(md5) == 32 else ""
            expected[dataset].add((str(year), name_of(year), url_of(year), known))
    for name, md5 in torchgeo.EuroCrops.zenodo_files:
        url = torchgeo.EuroCrops.base_url + name
        expected["eurocrops"].add((name.removesuffix(".zip"), name, url, md5))
    for dataset in dataset_names():
        folder = Path(builder_class(dataset).code_path).parent
        with (folder / "sources.csv").open(newline="", encoding="utf-8") as file:
            found = [tuple(row.values()) for row in csv.DictReader(file)]
        assert set(found) == expected[dataset]
        assert len(found) == len(expected[dataset])
        load_url_infos(folder / "checksums.tsv")  # TFDS can read it


def test_unknown_names_and_datasets_are_named_with_the_remedy(sources, tmp_path):
    with pytest.raises(InputError, match="cdl has no file 1999: choose among 2024, 2023, "):
        fetch("cdl", tmp_path, ["1999"])
    with pytest.raises(InputError, match="no dataset is called corn"):
        fetch("corn", tmp_path)
    for dataset in ("sact", "agrifieldnet"):
        with pytest.raises(InputError, match=rf"no plain download.*README.md.*{tmp_path}/labels"):
            fetch(dataset, tmp_path)
    with pytest.raises(InputError, match="leave out --names"):
        fetch("cdl", tmp_path, ["2023"], published=True)


def test_a_folder_that_cannot_be_written_is_named(server, sources, tmp_path):
    sources(f"2021,map_2021.tif,{RASTER_URL},")
    (tmp_path / "out").write_text("a file")
    for published in (False, True):
        server.files = {f"{FILES}{folder}/x.tif": CONTENT for folder in (CHIPS, "sas_harmonized")}
        with pytest.raises(InputError, match=f"cannot write to {tmp_path}/out .*another folder"):
            fetch("sas", tmp_path / "out", published=published)


def test_offline_asks_nobody(server, sources, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCROP_OFFLINE", "1")
    sources(f"2021,map_2021.tif,{RASTER_URL},")
    for published in (False, True):
        with pytest.raises(InputError, match="JAXCROP_OFFLINE is set"):
            fetch("sas", tmp_path, published=published)
    assert server.requests == []


@pytest.fixture
def hub(server):
    """Five chips and a label map in the repository's layout, beside files that are not theirs."""
    chips = [f"{CHIPS}/2021_-2742_{row}.tif" for row in range(1476, 1481)]
    label = "sas_harmonized/SouthAmerica_Soybean_2021.tif"
    other = "sentinel2_subsample_1000/sentinel2_sas_2021_subsampled_more/x.tif"
    server.files = {
        FILES + path: f"content of {path}".encode()
        for path in [*chips, f"{CHIPS}/readme.txt", label, other]
    }
    server.wanted = {path: server.files[FILES + path] for path in [*chips, label]}
    return server


def files_below(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_published_layout_is_complete_over_several_pages(hub, tmp_path, capsys):
    fetch("sas", tmp_path, published=True)
    assert files_below(tmp_path) == hub.wanted
    assert "6 files of datasets/torchgeo/harmonized_global_crops" in capsys.readouterr().out


def test_only_files_that_are_missing_or_damaged_are_fetched_again(hub, tmp_path):
    fetch("sas", tmp_path, published=True)
    absent, damaged, *_ = hub.wanted
    (tmp_path / absent).unlink()
    (tmp_path / damaged).write_bytes(hub.wanted[damaged][::-1])
    hub.requests.clear()
    fetch("sas", tmp_path, published=True)
    assert files_below(tmp_path) == hub.wanted
    asked = {path for path in hub.requests if path.startswith(FILES)}
    assert asked == {FILES + absent, FILES + damaged}


def test_a_published_file_that_is_not_as_listed_is_refused(hub, tmp_path):
    chip = next(iter(hub.wanted))

    def altered(entry):
        sha256 = "1" * 64 if entry["path"] == chip else entry["lfs"]["oid"]
        return entry | {"lfs": {"oid": sha256}}

    hub.altered = altered
    with pytest.raises(InputError, match=rf"{Path(chip).name} is not the file that was published"):
        fetch("sas", tmp_path, published=True)
    assert chip not in files_below(tmp_path)


def test_a_small_file_is_verified_by_its_checksum_in_git(hub, tmp_path):
    """`git hash-object` of a file that the repository does not keep with the large ones."""
    label = "sas_harmonized/SouthAmerica_Soybean_2021.tif"
    (tmp_path / "file").write_bytes(hub.wanted[label])
    oid = subprocess.check_output(["git", "hash-object", tmp_path / "file"], text=True).strip()
    (tmp_path / "file").unlink()

    def altered(entry):
        return {"type": "file", "path": label, "oid": oid, "size": 1} | (
            {} if entry["path"] == label else entry
        )

    hub.altered = altered
    fetch("sas", tmp_path, published=True)
    assert files_below(tmp_path) == hub.wanted
    (tmp_path / label).unlink()
    hub.files[FILES + label] = b"another"
    with pytest.raises(InputError, match=f"Soybean_2021.tif is not the file .* is not {oid}"):
        fetch("sas", tmp_path, published=True)
    assert label not in files_below(tmp_path)


def test_a_broken_download_of_a_published_file_is_continued(hub, tmp_path):
    label = "sas_harmonized/SouthAmerica_Soybean_2021.tif"
    part = tmp_path / f"{label}.part"
    part.parent.mkdir()
    part.write_bytes(hub.wanted[label][:7])
    part.with_suffix(".etag").write_text('"1"')
    hub.starts.clear()
    fetch("sas", tmp_path, published=True)
    assert files_below(tmp_path) == hub.wanted
    assert [start for start in hub.starts if start] == [7]


@pytest.mark.parametrize(
    "change",
    [
        {"path": f"{CHIPS}/../../../escaped.tif"},
        {"path": "/tmp/escaped.tif"},
        {"lfs": {"oid": "abc"}},
        {"lfs": None, "oid": None},
        {"type": "file", "path": None},
    ],
)
def test_a_listing_cannot_write_elsewhere_nor_leave_out_the_hash(hub, tmp_path, change):
    hub.altered = lambda entry: entry | (change if entry["path"].startswith(CHIPS) else {})
    with pytest.raises(InputError, match="does not list files with their checksums"):
        fetch("sas", tmp_path / "deep" / "er" / "out", published=True)
    assert files_below(tmp_path) == {}


def test_an_empty_folder_or_no_room_is_said_before_anything_is_fetched(hub, tmp_path):
    hub.altered = lambda entry: entry | {"size": 10**18}
    with pytest.raises(InputError, match=r"GB left and 6000000000\.0 GB are needed"):
        fetch("sas", tmp_path, published=True)
    hub.files = {}
    with pytest.raises(InputError, match="has no GeoTIFF in sas_harmonized: look where it lies"):
        fetch("sas", tmp_path, published=True)
    assert not [path for path in hub.requests if path.startswith(FILES)]
