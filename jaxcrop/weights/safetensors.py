"""The safetensors format: read as views of the file, written as a stream.

Writing array by array keeps the memory for a conversion at that of its largest tensors, where the
format's own library wants all of them at once.
"""

import json
import math
import mmap
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxcrop.errors import MalformedError

_MAX_HEADER = 1 << 20
_DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in {
        "F64": np.float64,
        "F32": np.float32,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "C64": np.complex64,
        "I64": np.int64,
        "I32": np.int32,
        "I16": np.int16,
        "I8": np.int8,
        "U64": np.uint64,
        "U32": np.uint32,
        "U16": np.uint16,
        "U8": np.uint8,
        "BOOL": np.bool_,
    }.items()
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Spec(NamedTuple):
    """What the header says of a tensor."""

    dtype: np.dtype
    shape: tuple[int, ...]


def map_file(path: Path) -> memoryview:
    """The bytes of a file, mapped read-only. Raises OSError, or ValueError for an empty file."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def release(view: memoryview | np.ndarray) -> None:
    """Let go of the memory that a mapped file's bytes take; they are read again when touched.

    For going through a large file once: `view` is any part of what `map_file` gave.
    """
    owner = view
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


def parse_safetensors(buffer: memoryview) -> dict[str, np.ndarray]:
    """The tensors of a file: a length, a JSON header, and data without gap or overlap.

    The arrays are views of `buffer`. Raises MalformedError, or what damaged JSON provokes
    (ValueError, LookupError, TypeError, struct.error).
    """
    (length,) = struct.unpack_from("<Q", buffer)
    if length > len(buffer) - 8:
        raise MalformedError("its safetensors header is cut off")
    if length > _MAX_HEADER:
        raise MalformedError(f"its safetensors header is longer than {_MAX_HEADER} bytes")
    header = json.loads(bytes(buffer[8 : 8 + length]), object_pairs_hook=_distinct)
    header.pop("__metadata__", None)
    data = buffer[8 + length :]
    tensors, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape = _DTYPES.get(entry["dtype"]), entry["shape"]
        start, stop = entry["data_offsets"]
        if dtype is None:
            raise MalformedError(f"its tensor {name} is of the unsupported type {entry['dtype']}")
        if any(type(n) is not int or not 0 <= n < 1 << 63 for n in (*shape, start, stop)):
            raise MalformedError(f"its tensor {name} is described by something but whole numbers")
        if start != end or stop - start != math.prod(shape) * dtype.itemsize or stop > len(data):
            raise MalformedError(f"its tensor {name} does not lie where the header says")
        tensors[name] = np.ndarray(shape, dtype, data, start)
        end = stop
    if end != len(data):
        raise MalformedError("it holds bytes that belong to no tensor")
    return {name: tensors[name] for name in header}


def _distinct(pairs: list[tuple[str, Any]]) -> dict:
    if len(result := dict(pairs)) != len(pairs):
        raise MalformedError("its safetensors header names a tensor twice")
    return result


def write_safetensors(
    file: IO[bytes], specs: Mapping[str, Spec], arrays: Iterable[np.ndarray]
) -> None:
    """Write tensors to `file`: their header, then `arrays`, which follow the order of `specs`.

    Each array is asked for when its turn comes, and must be C-contiguous.
    """
    header, end = {}, 0
    for name, (dtype, shape) in specs.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    file.write(struct.pack("<Q", len(text)) + text)
    for (name, spec), array in zip(specs.items(), arrays, strict=True):
        if (array.dtype, array.shape) != spec or not array.flags.c_contiguous:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, announced as {spec}")
        file.write(array.reshape(-1).view(np.uint8).data)
