"""Read `.pth`, `.pt` and `.safetensors` files without PyTorch and without executing a pickle.

The format is recognised from the bytes. Tensors are read-only views of the memory-mapped file, so
that reading takes little memory beyond the file itself, whatever the file claims to hold.
"""

import json
import math
import mmap
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxcrop.errors import InputError
from weights_convert.archive import Archive
from weights_convert.malformed import MalformedError
from weights_convert.pickles import Inert, Reference, Stream, interpret

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_SAFETENSORS_HEADER = 2 << 20
_SAFETENSORS_DTYPES = {
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


def read_checkpoint(path: str | Path) -> dict:
    """Everything a PyTorch or safetensors file holds, as nested Python data.

    Tensors become read-only numpy arrays (bfloat16 and float8 through `ml_dtypes`), containers
    plain dicts, lists, tuples and sets; an object of any other class becomes an
    `weights_convert.pickles.Inert` with its name and arguments. Raises InputError, naming the
    file, for a file that is missing, of another format, damaged or forged.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            buffer = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # mmap's answer to an empty file
        raise InputError(f"{path} is empty: download it again") from error
    try:
        content = _parse(buffer)
    except MemoryError as error:
        raise InputError(f"{path} needs more memory than there is") from error
    # What damaged or forged bytes provoke in the parsers.
    except (
        ValueError,
        LookupError,
        TypeError,
        OverflowError,
        RecursionError,
        struct.error,
    ) as error:
        reason = str(error) if isinstance(error, MalformedError) else "it is damaged"
        raise InputError(
            f"cannot read {path}: {reason} (download it again, or save it with torch.save)"
        ) from error
    if not isinstance(content, dict):
        kind = content.name if isinstance(content, Inert | Reference) else type(content).__name__
        raise InputError(
            f"{path} holds a {kind}, not a dictionary of tensors: save the model's state_dict()"
        )
    return content


def _parse(buffer: memoryview) -> Any:
    if buffer[:4] == b"PK\3\4":
        return _read_zip(Archive(buffer))
    if len(buffer) > 8 and buffer[8] == ord("{"):
        return _read_safetensors(buffer)
    if buffer[0] == 0x80:  # PROTO, the first instruction of a pickle
        return _read_legacy(buffer)
    raise MalformedError(
        f"its first bytes {bytes(buffer[:8])!r} are those of neither a PyTorch nor a safetensors "
        "file"
    )


def _read_zip(archive: Archive) -> Any:
    """The format of `torch.save` since 1.6: `<folder>/data.pkl` beside `<folder>/data/<key>`."""
    folders = [name.removesuffix("data.pkl") for name in archive.names if _is_root_pickle(name)]
    if len(folders) != 1:
        raise MalformedError("it is a zip file that torch.save did not write (it lacks data.pkl)")
    folder = folders[0]
    if f"{folder}constants.pkl" in archive.names:
        raise MalformedError("it is a TorchScript program, not a dictionary of tensors")
    byte_order = f"{folder}byteorder"
    if byte_order in archive.names and archive.read(byte_order) != b"little":
        raise MalformedError("it was written on a big-endian machine")

    def load_storage(key: str, dtype: np.dtype, count: int) -> memoryview:
        return _first_bytes(archive.read(f"{folder}data/{key}"), key, dtype, count)

    return interpret(Stream(archive.read(f"{folder}data.pkl")), load_storage)


def _is_root_pickle(name: str) -> bool:
    return name.endswith("/data.pkl") and name.count("/") == 1


def _first_bytes(data: memoryview, key: str, dtype: np.dtype, count: int) -> memoryview:
    size = count * dtype.itemsize
    if size > len(data):
        raise MalformedError(f"its storage {key} is shorter than its {count} elements")
    return data[:size]


def _read_legacy(buffer: memoryview) -> Any:
    """The format of `torch.save` before 1.6: four pickles, a list of keys, then the storages.

    The storages follow the pickle that describes them, so that pickle is interpreted twice: first
    for the sizes of their elements, with any bytes standing in for theirs, then for the content.
    """
    stream = Stream(buffer)

    def no_storage(key: str, _dtype: np.dtype, _count: int) -> memoryview:
        raise MalformedError(f"it refers to storage {key} where none can be")

    if interpret(stream, no_storage) != _LEGACY_MAGIC:
        raise MalformedError("it is a pickle that torch.save did not write")
    if interpret(stream, no_storage) != _LEGACY_PROTOCOL:
        raise MalformedError("it was written by an unknown version of torch.save")
    system = interpret(stream, no_storage)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise MalformedError("it was written on a big-endian machine")

    start = stream.position
    item_sizes: dict[str, int] = {}

    def stand_in(key: str, dtype: np.dtype, count: int) -> memoryview:
        if item_sizes.setdefault(key, dtype.itemsize) != dtype.itemsize:
            raise MalformedError(f"it gives storage {key} two element sizes")
        return _first_bytes(buffer, key, dtype, count)

    interpret(stream, stand_in)
    keys = interpret(stream, no_storage)
    position = stream.position
    storages: dict[str, memoryview] = {}
    for key in keys:
        (count,) = struct.unpack_from("<q", buffer, position)
        position += 8
        end = position + count * item_sizes[key]
        if not position <= end <= len(buffer):
            raise MalformedError(f"its storage {key} is cut off")
        storages[key] = buffer[position:end]
        position = end

    def load_storage(key: str, dtype: np.dtype, count: int) -> memoryview:
        return _first_bytes(storages[key], key, dtype, count)

    return interpret(Stream(buffer, start), load_storage)


def _read_safetensors(buffer: memoryview) -> dict[str, np.ndarray]:
    """A length, a JSON header, and tensors that fill the rest without gap or overlap."""
    (length,) = struct.unpack_from("<Q", buffer)
    if length > len(buffer) - 8:
        raise MalformedError("its safetensors header is cut off")
    if length > _MAX_SAFETENSORS_HEADER:
        raise MalformedError(
            f"its safetensors header is longer than {_MAX_SAFETENSORS_HEADER} bytes"
        )
    header = json.loads(bytes(buffer[8 : 8 + length]), object_pairs_hook=_distinct)
    header.pop("__metadata__", None)
    data = buffer[8 + length :]
    tensors, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape = _SAFETENSORS_DTYPES.get(entry["dtype"]), entry["shape"]
        start, stop = entry["data_offsets"]
        if dtype is None:
            raise MalformedError(f"its tensor {name} is of the unsupported type {entry['dtype']}")
        if any(type(n) is not int or n < 0 for n in (*shape, start, stop)):
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
