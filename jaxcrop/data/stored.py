"""Stored records as bytes, read straight from ArrayRecord files.

The library of that format copies a record several times and hashes it, which for a chip takes
longer than all else in reading it. Our builds store records uncompressed and each in a chunk of its
own, so where a record lies is all there is to know. A file is a sequence of chunks, which headers
interrupt at every 64 KiB (Riegeli's "records file format"; ArrayRecord adds its index at the end).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from io import FileIO
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from jaxcrop.errors import InputError

_BLOCK, _BLOCK_HEADER = 1 << 16, 24
_CHUNK_HEADER = 40
_RECORDS = ord("r")
_UNCOMPRESSED = 0
_BUFFERS = 512  # of one call; the system takes 1,024
_FILES = 256  # that are kept open

Span = tuple[Path, int, int]
"""File, first byte and number of bytes of a record, block headers among them not counted."""


@dataclass(frozen=True)
class StoredRecords:
    """The records of a split as bytes, in the order in which they are stored.

    Raises InputError, naming the file, where one is damaged or was not written by a build of ours.
    """

    spans: tuple[Span, ...]

    @classmethod
    def of(cls, info: tfds.core.DatasetInfo, split: str) -> "StoredRecords":
        """The records of a split, or of a part of it as TFDS writes parts: "train[:100]"."""
        spans = []
        for instruction in info.splits[split].file_instructions:
            of_file = _spans(Path(instruction.filename), instruction.examples_in_shard)
            end = None if instruction.take < 0 else instruction.skip + instruction.take
            spans += of_file[instruction.skip : end]
        return cls(tuple(spans))

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, " n"]:
        return _read(*self.spans[index])


@cache
def _spans(path: Path, count: int) -> Sequence[Span]:
    """Where the records of a file lie, its first `count`; what follows is the index of the file."""
    spans: list[Span] = []
    at = 0
    while len(spans) < count:
        header = _read(path, at, _CHUNK_HEADER)
        length, kind = int(header[8:16].view("<u8")[0]), header[24]
        data = _after(at, _CHUNK_HEADER)
        at = _after(data, length)
        if kind == _RECORDS:
            # How it is compressed, the length of the sizes, the sizes; then the records.
            start = _read(path, data, min(length, 16)).tolist()
            bytes_of_length = next(n for n, byte in enumerate(start[1:], start=1) if byte < 0x80)
            before = 1 + bytes_of_length + start[1]
            if start[0] != _UNCOMPRESSED or bytes_of_length > 1 or header[25] != 1:
                raise _damaged(path)
            spans.append((path, _after(data, before), length - before))
    return spans


@lru_cache(_FILES)
def _file(path: Path) -> FileIO:
    return FileIO(path)


def _read(path: Path, start: int, size: int) -> UInt8[np.ndarray, " size"]:
    """`size` bytes of a file from `start` on, block headers left out."""
    file = _file(path)  # held: what other threads do to the cache must not close it
    content = np.empty(size, np.uint8)
    buffers = list(_segments(start, memoryview(content)))
    at = start + _BLOCK_HEADER * (start % _BLOCK == 0)
    for first in range(0, len(buffers), _BUFFERS):
        group = buffers[first : first + _BUFFERS]
        wanted = sum(map(len, group))
        if os.preadv(file.fileno(), group, at) != wanted:
            raise _damaged(path)
        at += wanted
    return content


def _segments(start: int, content: memoryview) -> Iterator[memoryview | bytearray]:
    """The parts of `content` between block headers, and between them what receives these."""
    at = start % _BLOCK or _BLOCK_HEADER
    while content:
        room = _BLOCK - at
        yield content[:room]
        content, at = content[room:], _BLOCK_HEADER
        if content:
            yield bytearray(_BLOCK_HEADER)


def _after(start: int, size: int) -> int:
    """Where `size` bytes from `start` on end, block headers not counted."""
    block, at = divmod(start, _BLOCK)
    beyond = (at or _BLOCK_HEADER) + size - _BLOCK
    if beyond <= 0:
        return _BLOCK * (block + 1) + beyond
    blocks, rest = divmod(beyond - 1, _BLOCK - _BLOCK_HEADER)
    return _BLOCK * (block + 1 + blocks) + _BLOCK_HEADER + rest + 1


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} is damaged or was not written by `python -m jaxcrop.data build`: build the "
        "records again"
    )
