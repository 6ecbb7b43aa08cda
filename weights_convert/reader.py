"""Read `.pth`, `.pt` and `.safetensors` files without PyTorch and without executing a pickle.

The format is recognised from the bytes. Tensors are read-only views of the memory-mapped file, so
that reading takes little memory beyond the file itself, whatever the file claims to hold.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np

from jaxcrop.errors import InputError, MalformedError
from jaxcrop.weights.safetensors import map_file, parse_safetensors
from weights_convert.archive import Archive
from weights_convert.pickles import Inert, Reference, Stream, interpret

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


def read_checkpoint(path: str | Path) -> dict:
    """Everything a PyTorch or safetensors file holds, as nested Python data.

    Tensors become read-only numpy arrays (bfloat16 and float8 through `ml_dtypes`), containers
    plain dicts, lists, tuples and sets; an object of any other class becomes an
    `weights_convert.pickles.Inert` with its name and arguments. Raises InputError, naming the
    file, for a file that is missing, of another format, damaged or forged.
    """
    path = Path(path)
    try:
        buffer = map_file(path)
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
        reason = _printable(error) if isinstance(error, MalformedError) else "it is damaged"
        raise InputError(
            f"cannot read {path}: {reason} (download it again, or save it with torch.save)"
        ) from error
    if not isinstance(content, dict):
        kind = content.name if isinstance(content, Inert | Reference) else type(content).__name__
        raise InputError(
            f"{path} holds a {_printable(kind)}, not a dictionary of tensors: "
            "save the model's state_dict()"
        )
    return content


def _printable(text: object, limit: int = 200) -> str:
    """What a message says of a file, whose names may be long or command the terminal."""
    return "".join(char if char.isprintable() else "?" for char in str(text)[:limit])


def _parse(buffer: memoryview) -> Any:
    if buffer[:4] == b"PK\3\4":
        return _read_zip(Archive(buffer))
    if len(buffer) > 8 and buffer[8] == ord("{"):
        return parse_safetensors(buffer)
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
