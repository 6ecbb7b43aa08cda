"""Published weights on this machine: download, verify, convert, find.

Only `fetch` uses the network, and only when asked. JAXCROP_CACHE names the cache folder,
JAXCROP_MIRROR a base URL that replaces the scheme and host of every download; proxies are taken
from the environment as usual.
"""

import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

from jaxcrop.errors import InputError
from jaxcrop.weights.catalogue import DEFAULT, PublishedWeights, published

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte


def cache_dir() -> Path:
    """The folder of downloads and converted weights."""
    return Path(os.environ.get("JAXCROP_CACHE") or Path.home() / ".cache" / "jaxcrop")


def find(family: str) -> Path | None:
    """The converted weights in the cache that `family` stands for, if they were fetched."""
    path = _converted_path(published(DEFAULT[family]))
    return path if (path / "manifest.json").exists() else None


def fetch(name: str) -> Path:
    """Download and convert the published weights `name`, unless the cache has them.

    Returns the folder of converted weights. Raises InputError for an unknown name, a failed or
    broken download, or a file whose SHA-256 is not the published one.
    """
    entry = published(name)
    converted = _converted_path(entry)
    if converted.exists():
        return converted
    file = cache_dir() / "downloads" / entry.file_name
    if not file.exists():
        download(entry.url, file, entry.sha256)
    from weights_convert.convert import convert  # noqa: PLC0415 - jaxcrop stands on its own

    convert(file, converted, entry.family)
    return converted


def download(url: str, destination: Path, sha256: str) -> None:
    """Download `url` to `destination`, whose SHA-256 must begin with `sha256`.

    A broken download leaves `<destination>.part`, which the next attempt continues. Raises
    InputError naming the URL.
    """
    url = _mirrored(url)
    if not url.startswith(("http://", "https://")):
        raise InputError(f"cannot download {url}: only http and https are supported")
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(destination.name + ".part")
    try:
        _continue_download(url, partial)
    except urllib.error.HTTPError as error:
        raise InputError(f"cannot download {url}: the server answers {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"cannot download {url}: {reason} (set JAXCROP_MIRROR to use another server)"
        ) from error
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(sha256):
        partial.unlink()
        raise InputError(
            f"{url} is not the published file: its SHA-256 is {found}, not {sha256}...; try again "
            "or ask another server with JAXCROP_MIRROR"
        )
    os.replace(partial, destination)


def _converted_path(entry: PublishedWeights) -> Path:
    return cache_dir() / "weights" / entry.name


def _mirrored(url: str) -> str:
    mirror = os.environ.get("JAXCROP_MIRROR")
    if not mirror:
        return url
    return mirror.rstrip("/") + urllib.parse.urlsplit(url).path


def _continue_download(url: str, partial: Path) -> None:
    """Bring `partial` to the full length that the server announces."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        partial.unlink()  # as long as the file or longer: start again
        return _continue_download(url, partial)
    with response:
        continued = response.status == http.HTTPStatus.PARTIAL_CONTENT
        have = have if continued else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with partial.open("ab" if continued else "wb") as file:
            _copy(response, file, partial.name.removesuffix(".part"), have, total)
    got = partial.stat().st_size
    if total is not None and got != total:
        raise OSError(f"the connection broke after {got} of {total} bytes; try again to continue")


def _copy(
    response: http.client.HTTPResponse, file: IO[bytes], name: str, done: int, total: int | None
):
    """Copy the response to `file`, with the progress on stderr once a second."""
    of_total = "" if total is None else f" of {total / 1e6:.0f}"
    shown = time.monotonic()
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        done += len(chunk)
        if time.monotonic() - shown > 1:
            shown = time.monotonic()
            print(f"{name}: {done / 1e6:.0f}{of_total} MB", file=sys.stderr)
