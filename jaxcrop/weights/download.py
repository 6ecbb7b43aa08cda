"""Published weights on this machine: download, verify, convert, find.

Only `fetch` uses the network, and only when asked. JAXCROP_CACHE names the cache folder,
JAXCROP_MIRROR a base URL that replaces the scheme and host of every download, and JAXCROP_OFFLINE=1
forbids them all; proxies are taken from HTTP_PROXY, HTTPS_PROXY and NO_PROXY as usual.

A file is compared with the SHA-256 of the catalogue: the 8 digits that its publisher put into its
name. Where that has none, the SHA-256 that the server announces stands in, as Hugging Face sends it
for its large files. Either proves that the file arrived as the server holds it. Neither proves who
made it, for whoever can replace the file on the server can replace what is announced, and 8 digits
can be met by trial; for that reason a checkpoint is read without executing anything in it.
"""

import hashlib
import http.client
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, Literal

from jaxcrop.errors import InputError
from jaxcrop.weights.catalogue import PublishedWeights, published

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte
_BAR_INTERVAL = 0.2  # seconds between two states of the bar on a terminal
_LINE_INTERVAL = 5.0  # seconds between two lines in a log


def cache_dir() -> Path:
    """The folder of downloads and converted weights."""
    return Path(os.environ.get("JAXCROP_CACHE") or Path.home() / ".cache" / "jaxcrop")


def find(name: str) -> Path | None:
    """The converted weights `name` in the cache, if they were fetched.

    Raises InputError for an unknown name.
    """
    path = _converted_path(published(name))
    return path if (path / "manifest.json").exists() else None


def downloaded(name: str) -> Path:
    """The downloaded file of the published weights `name`.

    Raises InputError for an unknown name, and where the cache has no such file.
    """
    path = _download_path(published(name))
    if not path.exists():
        raise InputError(
            f"{name} is not in the cache: `python -m weights_convert fetch {name}` gets it"
        )
    return path


def state(name: str) -> Literal["converted", "downloaded", "partial", "absent"]:
    """How far the published weights `name` have come into the cache.

    Raises InputError for an unknown name.
    """
    file = _download_path(published(name))
    if find(name) is not None:
        return "converted"
    if file.exists():
        return "downloaded"
    return "partial" if _part(file).exists() else "absent"


def fetch(name: str) -> Path:
    """Download and convert the published weights `name`, unless the cache has them.

    Returns the folder of converted weights. Raises InputError for an unknown name, a failed,
    broken or forbidden download, or a file whose SHA-256 is not the published one.
    """
    entry = published(name)
    converted = _converted_path(entry)
    if converted.exists():
        return converted
    file = _download_path(entry)
    if not file.exists():
        download(entry.url, file, entry.sha256)
    from weights_convert.convert import convert  # noqa: PLC0415 - jaxcrop stands on its own

    convert(file, converted, like=entry.name)
    return converted


def download(url: str, destination: Path, sha256: str) -> None:
    """Download `url` to `destination`, whose SHA-256 must begin with `sha256`.

    Without `sha256` the hash that the server announces counts, if it does. A broken download leaves
    `<destination>.part`, which the next attempt continues if the server still has the same file.
    Raises InputError naming the URL.
    """
    url = address(url, f"unset it, or put the file at {destination}")
    if not url.startswith(("http://", "https://")):
        raise InputError(f"cannot download {url}: only http and https are supported")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        announced = _complete(url, _part(destination), sha256)
    except urllib.error.HTTPError as error:
        raise InputError(f"cannot download {url}: the server answers {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"cannot download {url}: {reason} (set JAXCROP_MIRROR to use another server)"
        ) from error
    with _part(destination).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    expected = sha256 or announced
    if not found.startswith(expected):
        _discard(_part(destination))
        raise InputError(
            f"{url} is not the file that was {'published' if sha256 else 'announced'}: its SHA-256 "
            f"is {found}, not {expected}{'...' * (len(expected) < len(found))}; try again or ask "
            "another server with JAXCROP_MIRROR"
        )
    comparison = "as published" if sha256 else "as announced" if announced else "not published"
    print(f"{destination.name}: SHA-256 {found} ({comparison})", file=sys.stderr)
    os.replace(_part(destination), destination)
    _discard(_part(destination))


def address(url: str, remedy: str = "unset it") -> str:
    """Where `url` is asked for: at JAXCROP_MIRROR, if that is set.

    Raises InputError, with this `remedy`, where JAXCROP_OFFLINE forbids all downloads.
    """
    mirror = os.environ.get("JAXCROP_MIRROR")
    if mirror:
        parts = urllib.parse.urlsplit(url)
        url = mirror.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")
    if os.environ.get("JAXCROP_OFFLINE", "0") not in ("", "0"):
        raise InputError(f"cannot download {url}: JAXCROP_OFFLINE is set ({remedy})")
    return url


def _converted_path(entry: PublishedWeights) -> Path:
    return cache_dir() / "weights" / entry.name


def _download_path(entry: PublishedWeights) -> Path:
    """Each set has a folder, for several files are called `model.safetensors`."""
    return cache_dir() / "downloads" / entry.name / entry.file_name


def _part(destination: Path) -> Path:
    return destination.with_name(destination.name + ".part")


def _tag_of(part: Path) -> Path:
    """Where the ETag of the file that `part` is a part of is kept."""
    return part.with_suffix(".etag")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_of(part).unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, though never from https to http, and keeps the hash they announce."""

    announced = ""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # noqa: PLR0917
        allowed = ("https:",) if req.type == "https" else ("https:", "http:")
        if not newurl.lower().startswith(allowed):
            raise urllib.error.URLError(f"it is redirected to {newurl}, which is not secure")
        self.announced = _announced(headers) or self.announced
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _announced(headers: http.client.HTTPMessage) -> str:
    """The SHA-256 that Hugging Face sends for large files, at the redirect to its storage."""
    match = re.fullmatch('"?([0-9a-f]{64})"?', headers.get("X-Linked-ETag", ""))
    return match[1] if match else ""


def _complete(url: str, part: Path, sha256: str) -> str:
    """Bring `part` to the full length; returns the SHA-256 that the server announces, or ""."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    redirects = _Redirects()
    try:
        response = urllib.request.build_opener(redirects).open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if not have or error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        _discard(part)  # as long as the file or longer: start again
        return _complete(url, part, sha256)
    with response:
        tag = response.headers.get("ETag", "")
        continued = response.status == http.HTTPStatus.PARTIAL_CONTENT
        if continued and not _is_same(tag, part, sha256):
            _discard(part)
            return _complete(url, part, sha256)
        have = have if continued else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with part.open("ab" if continued else "wb") as file:
            _tag_of(part).write_text(tag)
            _copy(response, file, _Progress(part.name.removesuffix(".part"), have, total))
    got = part.stat().st_size
    if total is not None and got != total:
        raise OSError(f"the connection broke after {got} of {total} bytes; try again to continue")
    return _announced(response.headers) or redirects.announced


def _is_same(tag: str, part: Path, sha256: str) -> bool:
    """Whether the server still has the file that `part` began.

    Its ETag tells; where it sends none, a known hash will tell in the end.
    """
    before = _tag_of(part).read_text() if _tag_of(part).exists() else ""
    return tag == before and bool(tag or sha256)


def _copy(response: http.client.HTTPResponse, file: IO[bytes], progress: "_Progress") -> None:
    try:
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            progress.advance(len(chunk))
    finally:
        progress.close()


class _Progress:
    """A bar on stderr where that is a terminal, else a line every few seconds."""

    def __init__(self, name: str, done: int, total: int | None):
        self._name, self._done, self._total = name, done, total
        self._begun_at, self._begun = done, time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self._shown = self._begun

    def advance(self, count: int) -> None:
        self._done += count
        interval = _BAR_INTERVAL if self._on_terminal else _LINE_INTERVAL
        if time.monotonic() - self._shown >= interval:
            self._show()

    def close(self) -> None:
        """Leave the last state of a bar on a line of its own."""
        if self._on_terminal:
            self._show()
            print(file=sys.stderr)

    def _show(self) -> None:
        self._shown = time.monotonic()
        text = self._text(self._shown - self._begun)
        if self._on_terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:width]}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def _text(self, elapsed: float) -> str:
        """Name, bar, megabytes, rate and time left; without bar and rest for an unknown length."""
        rate = (self._done - self._begun_at) / max(elapsed, 1e-9)
        done, speed = f"{self._done / 1e6:.0f}", f"{rate / 1e6:.1f} MB/s"
        if not self._total:
            return f"{self._name}: {done} MB, {speed}"
        filled = 20 * self._done // self._total
        left = int((self._total - self._done) / max(rate, 1))
        return (
            f"{self._name} [{'#' * filled:<20}] {done} of {self._total / 1e6:.0f} MB, {speed}, "
            f"{left // 60}:{left % 60:02d} left"
        )
