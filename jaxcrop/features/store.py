"""Arrays that are computed once and kept in a folder, to be mapped from there."""

import fcntl
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcrop.errors import InputError
from jaxcrop.weights.download import cache_dir

_ABOUT = "about.json"
_CHUNK = 1 << 26  # bytes that are checked at a time


class Spec(NamedTuple):
    """Shape and type of an array to be."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


Blocks = Callable[[], Iterable[Mapping[str, np.ndarray]]]
"""Computes arrays from the first row to the last: in each mapping, the next rows of all."""


class FeatureStore:
    """Named arrays by what they were computed of: in a folder, or in memory for this once.

    In the folder each entry is a folder of its own, written whole or not at all. Processes that
    want the same entry wait for the first. One that is damaged when a process first asks for it is
    computed again. Entries can be removed at any time.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder
        self._whole: set[Path] = set()

    @classmethod
    def default(cls) -> "FeatureStore":
        """The store in the cache folder."""
        return cls(cache_dir() / "features")

    @property
    def size(self) -> int:
        """Bytes that all entries take."""
        files = self.folder.glob("[!.]*/*") if self.folder else ()
        return sum(path.stat().st_size for path in files)

    def has(self, about: Mapping[str, Any]) -> bool:
        """Whether an entry is kept of what was computed of `about`, damaged or not."""
        return self.folder is not None and (self._entry(about) / _ABOUT).is_file()

    def arrays(
        self, about: Mapping[str, Any], specs: Mapping[str, Spec], blocks: Blocks
    ) -> dict[str, np.ndarray]:
        """The arrays of `specs`, which `blocks` computes unless the store has them.

        `about` holds, as JSON can, all that decides their values. Those of a folder are mapped,
        read-only. Raises InputError where the folder cannot be written.
        """
        if self.folder is None:
            arrays = {name: np.empty(*spec) for name, spec in specs.items()}
            for at, rows in _rows(specs, blocks()):
                for name, part in rows.items():
                    arrays[name][at : at + len(part)] = part
            return arrays
        entry = self._entry(about)
        found = _read(entry, specs, check=entry not in self._whole)
        if found is None:
            try:
                with _alone(entry):
                    found = _read(entry, specs)  # another process may have been first
                    if found is None:
                        _write(entry, about, specs, blocks)
                        found = _read(entry, specs, check=False)
            except OSError as error:
                raise InputError(
                    f"features cannot be kept in {self.folder} ({error.strerror}): free the disk, "
                    "or choose another folder"
                ) from error
        self._whole.add(entry)
        return found

    def _entry(self, about: Mapping[str, Any]) -> Path:
        return self.folder / sha256(_text(about).encode()).hexdigest()[:32]


def _text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True)


@contextmanager
def _alone(entry: Path) -> Iterator[None]:
    """Wait until no other process computes the entry, and keep others waiting."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    with entry.with_name(f".{entry.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _rows(
    specs: Mapping[str, Spec], blocks: Iterable[Mapping[str, np.ndarray]]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The rows of each block as the arrays have them, and the number of the first."""
    at = 0
    for block in blocks:
        rows = {name: np.ascontiguousarray(block[name], spec.dtype) for name, spec in specs.items()}
        yield at, rows
        at += len(next(iter(rows.values())))
    if any(at != spec.shape[0] for spec in specs.values()):
        raise ValueError(f"{at} rows were computed of {[s.shape[0] for s in specs.values()]}")


def _bytes(rows: np.ndarray) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data


def _write(entry: Path, about: Mapping[str, Any], specs: Mapping[str, Spec], blocks: Blocks):
    shutil.rmtree(entry, ignore_errors=True)
    draft = entry.with_name(f".{entry.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
    draft.mkdir()
    try:
        sums = dict.fromkeys(specs, 0)
        with ExitStack() as opened:
            files = {name: opened.enter_context(_file(draft, name).open("wb")) for name in specs}
            for name, spec in specs.items():
                header = {"descr": np.dtype(spec.dtype).str, "fortran_order": False}
                np.lib.format.write_array_header_1_0(files[name], {**header, "shape": spec.shape})
            for _, rows in _rows(specs, blocks()):
                for name, part in rows.items():
                    files[name].write(_bytes(part))
                    sums[name] = zlib.crc32(_bytes(part), sums[name])
        (draft / _ABOUT).write_text(json.dumps({"about": about, "crc32": sums}, indent=1))
        os.rename(draft, entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _read(
    entry: Path, specs: Mapping[str, Spec], *, check: bool = True
) -> dict[str, np.ndarray] | None:
    """The arrays of an entry, or None where it is missing or, if that is checked, damaged."""
    try:
        sums = json.loads((entry / _ABOUT).read_text())["crc32"]
        arrays = {
            name: _typed(np.load(_file(entry, name), mmap_mode="r"), np.dtype(spec.dtype))
            for name, spec in specs.items()
        }
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    for name, array in arrays.items():
        if (array.shape, array.dtype) != (specs[name].shape, np.dtype(specs[name].dtype)):
            return None
        if check and _crc32(array) != sums.get(name):
            return None
    return arrays


def _typed(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An array whose file has no name for its type, as is so for bfloat16, in that type."""
    unnamed = array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize
    return array.view(dtype) if unnamed else array


def _crc32(array: np.ndarray) -> int:
    rows = max(1, _CHUNK // max(1, array.itemsize * math.prod(array.shape[1:])))
    total = 0
    for start in range(0, len(array), rows):
        total = zlib.crc32(_bytes(np.ascontiguousarray(array[start : start + rows])), total)
    return total


def _file(entry: Path, name: str) -> Path:
    return entry / f"{name}.npy"
