"""Downloading: label maps from their providers, and the published chips from Hugging Face.

JAXCROP_MIRROR, JAXCROP_OFFLINE and proxies count as for weights (`jaxcrop.weights.download`).
"""

import csv
import dataclasses
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import redirect_stderr
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tensorflow_datasets.core.download.checksums import (
    UrlInfo,
    compute_url_info,
    load_url_infos,
    save_url_infos,
)
from tensorflow_datasets.core.download.download_manager import (
    DownloadManager,
    NonMatchingChecksumError,
)
from tensorflow_datasets.core.download.util import DownloadError

from jaxcrop.errors import InputError
from jaxcrop.files import replacing
from jaxcrop.weights.download import address, download
from jaxcrop_datasets.crop_chips import PUBLISHED, CropChips

HUB = "https://huggingface.co"
REPOSITORY = "datasets/torchgeo/harmonized_global_crops"

CHECKSUMS = "checksums.tsv"
"""SHA-256 sums of providers' files as TFDS writes them: beside a builder, those that its authors
recorded; in the folder of `fetch`, those that arrived there and must arrive again."""

MAX_RATIO = 100
"""How many times as large as its archive its files may be: tables of polygons shrink to 1/20."""

_PARALLEL = 8  # downloads of published chips at a time
_LARGE = 100_000_000  # bytes of a file that is downloaded by itself
_TIMEOUT = 60  # seconds without a byte of a listing


def fetch(
    builder: type[CropChips],
    out: Path,
    names: Sequence[str] | None = None,
    *,
    published: bool = False,
) -> None:
    """Download the label maps of a dataset to `out/labels`, or its published chips and labels.

    `names` choose among the provider's files (`sources.csv` of the dataset), by default that of
    the builder's year, or all where files are not of years. `published` lays the harmonised chips
    out in `out` as their repository does. What is there already and whole is not fetched again.
    Raises InputError for unknown names, for what cannot be downloaded, whose checksum is another
    or whose archive is not safe to unpack.
    """
    if published and names:
        raise InputError("the published chips have no names to choose from: leave out --names")
    try:
        if published:
            labels, chips = builder.PUBLISHED_LABELS, f"{PUBLISHED}/{builder.PUBLISHED_CHIPS}"
            _fetch_published((labels, chips), out)
        else:
            _fetch_maps(builder.name, str(builder.YEAR), out, names)
    except OSError as error:
        raise InputError(f"cannot write to {out} ({error}): choose another folder") from error


class _Source(NamedTuple):
    """A file of the provider, a row of sources.csv; `md5` is empty where it is not known."""

    name: str
    file: str
    url: str
    md5: str


def _fetch_maps(dataset: str, year: str, out: Path, names: Sequence[str] | None) -> None:
    folder = Path(__file__).with_name(dataset)
    with (folder / "sources.csv").open(newline="", encoding="utf-8") as file:
        sources = {row["name"]: _Source(**row) for row in csv.DictReader(file)}
    labels = out / "labels"
    if not sources:
        raise InputError(
            f"the provider of {dataset} has no plain download: get its label maps as "
            f"{folder / 'README.md'} says and put them in {labels}"
        )
    names = names or ([year] if year in sources else list(sources))
    for name in names:
        if name not in sources:
            raise InputError(f"{dataset} has no file {name}: choose among {', '.join(sources)}")
    labels.mkdir(parents=True, exist_ok=True)
    records = [path for path in (out / CHECKSUMS, folder / CHECKSUMS) if path.exists()]
    known = {url: info for path in records for url, info in load_url_infos(path).items()}
    for source in map(sources.get, names):
        path, known[source.url] = _downloaded(source, out / "downloads", known.get(source.url))
        with replacing(out / CHECKSUMS) as record:
            save_url_infos(record, known)
        if source.file.endswith(".zip"):
            _unpack(path, labels)
        else:
            _link(path, labels / source.file)
        print(f"{source.file} is in {labels}")


def _downloaded(source: _Source, cache: Path, known: UrlInfo | None) -> tuple[Path, UrlInfo]:
    """The file of `source` in TFDS's `cache`, downloaded unless it is there, and its checksum.

    Raises InputError unless it has the checksum `known`, if any, and the MD5 of `source`.
    """
    url = address(source.url)
    manager = DownloadManager(download_dir=cache, url_infos={url: known} if known else {})
    try:
        path = Path(manager.download(url))
    except NonMatchingChecksumError as error:
        raise _another(url, f"its SHA-256 is not {known.checksum}") from error
    except (DownloadError, OSError) as error:
        raise InputError(
            f"cannot download {url}: {error} (set JAXCROP_MIRROR to use another server)"
        ) from error
    finally:
        for left in list(cache.rglob("*.tmp.*")):  # where it broke, now or at an earlier time
            shutil.rmtree(left, ignore_errors=True)
    found = dataclasses.replace(compute_url_info(path), filename=source.file)
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if known and found != known:
        path.unlink()
        raise _another(url, f"its SHA-256 is {found.checksum}, not {known.checksum}")
    if source.md5 not in ("", md5):
        path.unlink()
        raise _another(url, f"its MD5 is {md5}, not {source.md5}")
    return path, found


def _another(url: str, difference: str) -> InputError:
    return InputError(
        f"{url} is not the file that was recorded: {difference}; try again or ask another server "
        "with JAXCROP_MIRROR"
    )


def _link(file: Path, target: Path) -> None:
    """Let `file` appear as `target` too: linked, or copied where the disk cannot link."""
    with replacing(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(file, temporary)
        except OSError:
            shutil.copyfile(file, temporary)


def _unpack(archive: Path, folder: Path) -> None:
    """Put the files of a zip archive, whichever folders they are in, side by side into `folder`.

    Raises InputError for an archive that is damaged, or that names files elsewhere, holds links or
    would grow too much: then nothing of it is kept.
    """
    try:
        with (
            zipfile.ZipFile(archive) as file,
            tempfile.TemporaryDirectory(prefix=".", dir=folder) as temporary,
        ):
            members = _safe_members(file, archive)
            _check_room(folder, sum(member.file_size for member in members.values()))
            for name, member in members.items():
                with file.open(member) as source, Path(temporary, name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            for name in members:
                os.replace(Path(temporary, name), folder / name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(
            f"{archive} cannot be unpacked ({error}): remove it and fetch it again"
        ) from error


def _safe_members(file: zipfile.ZipFile, archive: Path) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by their names without folders. Raises InputError as `_unpack`."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in file.infolist():
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts or re.search(r"[\\:]", member.filename):
            raise _unsafe(archive, f"{member.filename} would be written elsewhere")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe(archive, f"{member.filename} is a link or device")
        if member.flag_bits & 1:
            raise _unsafe(archive, f"{member.filename} is encrypted")
        if member.is_dir() or "__MACOSX" in path.parts:
            continue
        if path.name in members:
            raise _unsafe(archive, f"two of its files are called {path.name}")
        members[path.name] = member
    size = sum(member.file_size for member in members.values())  # zipfile reads no more than this
    if size > MAX_RATIO * archive.stat().st_size:
        raise _unsafe(
            archive, f"it would grow to {size / 1e6:.0f} MB, over {MAX_RATIO} times its size"
        )
    return members


def _unsafe(archive: Path, fault: str) -> InputError:
    return InputError(
        f"{archive} is not safe to unpack, {fault}: remove it and take it from the provider"
    )


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InputError(
            f"{folder} has {free / 1e9:.1f} GB left and {size / 1e9:.1f} GB are needed: make room "
            "or choose another folder"
        )


class _Remote(NamedTuple):
    """A file of the repository: its path there, and what the repository says it holds.

    `digest` is the SHA-256 of a large file, and of a small one the SHA-1 of git.
    """

    path: str
    digest: str
    size: int

    @property
    def sha256(self) -> str:
        return self.digest if len(self.digest) == 64 else ""

    def is_whole(self, path: Path) -> bool:
        """Whether `path` holds this file."""
        try:
            with path.open("rb") as file:
                if self.sha256:
                    return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
                content = file.read()
        except FileNotFoundError:
            return False
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == self.digest


def _fetch_published(folders: Sequence[str], out: Path) -> None:
    files = [file for folder in folders for file in _listed(folder)]
    out.mkdir(parents=True, exist_ok=True)
    wanted = [file for file in files if not file.is_whole(out / file.path)]
    _check_room(out, sum(file.size for file in wanted))
    small = [file for file in wanted if file.size < _LARGE]
    log = sys.stderr
    # Instead of a bar for each chip, eight at a time, a line for every hundred.
    with redirect_stderr(io.StringIO()), ThreadPoolExecutor(_PARALLEL) as pool:
        jobs = [pool.submit(_fetch_file, file, out) for file in small]
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                job.result()
                if done % 100 == 0:
                    print(f"{done} of {len(small)} files", file=log, flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for file in wanted:
        if file.size >= _LARGE:
            _fetch_file(file, out)
    print(f"{len(files)} files of {REPOSITORY} are in {out}")


def _fetch_file(file: _Remote, out: Path) -> None:
    url, path = f"{HUB}/{REPOSITORY}/resolve/main/{urllib.parse.quote(file.path)}", out / file.path
    download(url, path, file.sha256)
    if not file.sha256 and not file.is_whole(path):
        path.unlink()
        raise _another(address(url), f"its SHA-1 as git counts it is not {file.digest}")


def _listed(folder: str) -> Iterator[_Remote]:
    """The GeoTIFFs below a folder of the repository, which lists them in pages."""
    url: str | None = f"{HUB}/api/{REPOSITORY}/tree/main/{folder}?recursive=true"
    found = False
    while url:
        at = address(url)
        entries, url = _page(at)
        try:
            files = [
                _Remote(entry["path"], (entry.get("lfs") or entry)["oid"], entry["size"])
                for entry in entries
                if entry["type"] == "file" and entry["path"].endswith((".tif", ".tiff"))
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise _no_listing(at) from error
        for file in files:
            inside = file.path.startswith(f"{folder}/")
            if (
                not inside
                or ".." in file.path.split("/")
                or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", str(file.digest))
            ):
                raise _no_listing(at)
        yield from files
        found = found or bool(files)
    if not found:
        raise InputError(f"{HUB}/{REPOSITORY} has no GeoTIFF in {folder}: look where it lies now")


def _page(url: str) -> tuple[list, str | None]:
    """The entries of one page of a listing, and the URL of the following page."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            link = response.headers.get("Link", "")
            entries = json.load(response)
    except urllib.error.HTTPError as error:
        raise InputError(f"cannot list {url}: the server answers {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"cannot list {url}: {reason} (set JAXCROP_MIRROR to use another server)"
        ) from error
    except ValueError as error:
        raise _no_listing(url) from error
    following = re.search(r'<(https?://[^>]+)>; *rel="next"', link)
    return entries, following[1] if following else None


def _no_listing(url: str) -> InputError:
    return InputError(
        f"{url} does not list files with their checksums: ask another server with JAXCROP_MIRROR"
    )
