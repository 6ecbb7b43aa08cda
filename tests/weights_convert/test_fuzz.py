"""Ten thousand damaged and forged checkpoints: each is refused or read right, in little memory.

Every group runs in a process of its own, whose address space may grow by the size of the file and
64 MB, and where an audit hook reports whatever a reader has no business with: starting programs,
compiling code, importing modules, opening other files. Case I of a group depends on nothing but its
name, so that `python tests/weights_convert/test_fuzz.py FOLDER GROUP I` repeats it alone; FOLDER is
the one that the failing test names.
"""

import codecs
import collections
import gc
import io
import itertools
import json
import math
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from jaxcrop.errors import InputError
from weights_convert.layouts import tensors_by_name
from weights_convert.reader import read_checkpoint

MARGIN = 64 << 20
SECONDS = 4  # of processor time for one file
FORBIDDEN = {
    "compile", "exec", "import", "os.exec", "os.fork", "os.posix_spawn", "os.system",
    "pickle.find_class", "marshal.loads", "socket.connect", "subprocess.Popen", "ctypes.dlopen",
}  # fmt: skip
STORAGE = np.arange(16, dtype="<f4").tobytes()


# What the files are made of.


def literal(value) -> bytes:
    """The instructions that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def wrapped(value: bytes) -> bytes:
    """A pickle of {"w": value}, from the instructions that push the value."""
    return b"\x80\x02}" + literal("w") + value + b"s."


def zip_file(data: bytes, storages=(STORAGE,), **options) -> bytes:
    """A checkpoint in the zip format from the bytes of its pickle and of its storages."""
    with zipfile.ZipFile(file := io.BytesIO(), "w", **options) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        for key, storage in enumerate(storages):
            archive.writestr(f"archive/data/{key}", storage)
    return file.getvalue()


def legacy_file(data: bytes, storages=(STORAGE,)) -> bytes:
    """The same in the format before PyTorch 1.6, for storages of four bytes an element.

    The pickle has to refer to all of them.
    """
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    parts += [data, pickle.dumps([str(key) for key in range(len(storages))], 2)]
    parts += [struct.pack("<q", len(storage) // 4) + storage for storage in storages]
    return b"".join(parts)


CONTAINERS = (zip_file, legacy_file)
VALID = {
    "offset": 0,
    "shape": (4, 4),
    "strides": (4, 1),
    "count": 16,
    "kind": "FloatStorage",
    "key": "0",
}


def tensor(legacy: bool = False, **claims) -> bytes:
    """The instructions that push a tensor, with whatever is claimed of it."""
    claims = VALID | claims
    storage = b"(" + literal("storage") + f"ctorch\n{claims['kind']}\n".encode()
    storage += literal(claims["key"]) + literal("cpu") + literal(claims["count"])
    storage += b"N" * legacy + b"tQ"
    view = literal(claims["offset"]) + literal(claims["shape"]) + literal(claims["strides"])
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"\x89NtR"


ENDLESS = tensor(shape=(2**40,), strides=(0,))
CANARY = """
open("mark", "w").close()
def mark(*_): open("mark", "w").close()
class New:
    def __new__(cls, *_): mark(); return object.__new__(cls)
class Built:
    def __setstate__(self, _): mark()
"""
ATTACKS = (
    b"cposix\nsystem\n(S'touch mark'\ntR",
    b"(S'touch mark'\niposix\nsystem\n",
    b"(cposix\nsystem\nS'touch mark'\no",
    b"\x8c\x05posix\x8c\x06system\x93S'touch mark'\n\x85R",
    b"cbuiltins\neval\n(S'__import__(\"fuzz_canary\")'\ntR",
    b"cbuiltins\nopen\n(S'mark'\nS'w'\ntR",
    b"cfuzz_canary\nmark\n)R",
    b"cfuzz_canary\nNew\n)\x81",
    b"cfuzz_canary\nNew\n)}\x92",
    b"cfuzz_canary\nBuilt\n)\x81}b",
)
"""Each leaves the file "mark" in the working directory of whoever executes it."""


# The groups: each has a way to make a case by chance.


class Case(NamedTuple):
    """A file, whether it is valid, and its tensors, each as far as that is known."""

    data: bytes = b""
    valid: bool | None = None
    tensors: dict[str, np.ndarray | None] | None = None


def damaged(kind: str) -> Callable[[random.Random, Path], Case]:
    """A file of torch or safetensors, damaged in the ways of disks, networks and attackers."""

    def case(chance: random.Random, folder: Path) -> Case:
        data = bytearray((folder / kind).read_bytes())
        for _ in range(chance.choice((1, 1, 1, 2, 8))):
            start = chance.randrange(len(data) + 1)
            length = chance.choice((1, 2, 4, 8, 64, 512))
            match chance.randrange(7):
                case 0:
                    del data[start:]
                case 1:
                    del data[start : start + length]
                case 2:
                    data[start:start] = chance.randbytes(length)
                case 3:
                    data[start : start + length] = chance.randbytes(length)
                case 4:
                    fill = chance.choice((b"\0", b"\xff")) * length
                    data[start : start + length] = fill
                case 5:
                    source = chance.randrange(len(data) + 1)
                    data[start : start + length] = data[source : source + length]
                case 6 if start < len(data):
                    data[start] ^= 1 << chance.randrange(8)
            if not data:
                break
        # Only the zip format has checksums, which vouch for every byte that matters.
        tensors = read_arrays(folder) if kind.startswith("zip") else None
        return Case(bytes(data), tensors=tensors)

    return case


NAMES = (
    "posix system", "builtins eval", "builtins getattr", "fuzz_canary mark", "fuzz_canary New",
    "fuzz_canary Built", "collections OrderedDict", "collections defaultdict", "torch Size",
    "torch FloatStorage", "torch uint16", "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_parameter", "torch._tensor _rebuild_from_type_v2", "_codecs encode",
    "builtins set", "builtins frozenset", "builtins complex", "argparse Namespace",
)  # fmt: skip


def plain_value(chance: random.Random, depth: int = 0):
    """A value as arguments, keys and claims have them."""
    options = [
        None, True, False, 0, 1, -1, chance.randrange(300), 2**31, 2**63, -(2**63), 2**2000, 0.5,
        float("nan"), float("inf"), "", "0", "storage", "latin1", "module", "\x1b[2J\n", "x" * 300,
        b"\0" * 5,
    ]  # fmt: skip
    if depth < 2:
        parts = [plain_value(chance, depth + 1) for _ in range(chance.randrange(5))]
        options += [parts, tuple(parts), tuple(chance.randrange(9) for _ in parts), {1: parts}]
    return chance.choice(options)


def instruction(chance: random.Random) -> bytes:
    """One instruction of a pickle, or a few that belong together, with arguments made up."""
    huge = struct.pack("<Q", chance.choice((2**31 - 1, 2**32 - 1, 2**62, 2**64 - 1)))
    return chance.choice([
        literal(plain_value(chance)),
        literal(plain_value(chance)),
        b"c" + chance.choice(NAMES).replace(" ", "\n").encode() + b"\n",
        b"c" + chance.choice(NAMES).replace(" ", "\n").encode() + b"\n",
        b"".join(literal(part) for part in chance.choice(NAMES).split()) + b"\x93",
        b"i" + chance.choice(NAMES).replace(" ", "\n").encode() + b"\n",
        chance.choice(ATTACKS),
        tensor(chance.random() < 0.5, **claims(chance)),
        ENDLESS,
        bytes([chance.choice(b"N\x88\x89]})\x8f((((")]),  # push something empty, or a mark
        bytes([chance.choice(b"]})\x8f((")]),
        bytes([chance.choice(b"012\x94aesutld\x85\x86\x87\x90\x91Rob\x81\x92QQRR")]),
        bytes([chance.choice(b"012\x94aesutld\x85\x86\x87\x90\x91Rob\x81\x92QQRR")]),
        bytes([chance.choice(b"hq"), chance.randrange(4)]),
        chance.choice(b"jr").to_bytes() + struct.pack("<I", chance.choice((0, 1, 2**32 - 1))),
        chance.choice((b"X", b"B", b"T", b"\x8b")) + huge[:4] + b"x",
        chance.choice((b"\x8d", b"\x8e", b"\x96", b"\x95")) + huge + b"x",
        chance.choice((b"I", b"L", b"F", b"S", b"V", b"g", b"p", b"P")) + b"1x\xff\n",
        chance.randbytes(1),
    ])  # fmt: skip


def value(chance: random.Random, depth: int = 0) -> bytes:
    """Instructions that push one value: data, containers, tensors, calls of anything."""
    if depth > 3 or chance.random() < 0.3:
        return literal(plain_value(chance))

    def one(_: int = 0) -> bytes:
        return value(chance, depth + 1)

    def key() -> bytes:
        return literal(chance.choice(("a", "b.c", "", 3, (1, "x"), 0.5, None)))

    def values() -> bytes:
        return b"".join(map(one, range(chance.randrange(4))))

    called = b"c" + chance.choice(NAMES).replace(" ", "\n").encode() + b"\n"
    make = chance.choice(
        (
            lambda: tensor(chance.random() < 0.5),
            lambda: tensor(chance.random() < 0.5, **claims(chance)),
            lambda: b"](" + values() + b"e",
            lambda: b"(" + values() + b"t",
            lambda: b"(" + values() + b"l",
            lambda: b"}" + key() + one() + b"s",
            lambda: b"}(" + key() + one() + key() + one() + b"u",
            lambda: b"\x8f(" + key() + key() + b"\x90",
            lambda: b"(" + key() + b"\x91",
            lambda: called,
            lambda: called + b"(" + values() + b"tR",
            lambda: called + b")R" + one() + b"b",
            lambda: called + b"(" + values() + b"t\x81" + one() + b"b",
            lambda: called + b"(" + values() + b"t}\x92",
            lambda: called + b")R(" + values() + b"e",
            lambda: b"(" + called + values() + b"o",
            lambda: b"(" + values() + b"i" + called[1:],
            lambda: b"(" + literal("module") + values() + b"tQ",
            lambda: chance.choice(ATTACKS),
            lambda: one() + b"q%c0h%c" % (depth, depth),
        )
    )
    return make()


def forged_pickle(chance: random.Random, folder: Path) -> Case:
    """A pickle made up, or torch's own, perhaps with a few instructions changed; well packed."""
    changes = chance.choice((0, 0, 1, 2, 4))
    if chance.random() < 0.6:
        data, storages = bytearray(wrapped(value(chance))), 1
    else:
        data, storages = (
            bytearray((folder / chance.choice(("zip.pkl", "zip4.pkl"))).read_bytes()),
            4,
        )
        changes += 1
    for _ in range(changes):
        start, length = chance.randrange(len(data)), chance.choice((0, 0, 1, 1, 2, 4))
        data[start : start + length] = chance.choice(
            (chance.randbytes(length), instruction(chance))
        )
    contents = [chance.randbytes(chance.choice((512, 512, 512, 96, 4))) for _ in range(storages)]
    return Case(chance.choice(CONTAINERS)(bytes(data), contents))


def claims(chance: random.Random) -> dict:
    """Claims about a tensor: true, nearly true, absurd or of the wrong type."""
    dimensions = chance.choice((0, 1, 2, 2, 2, 3, 33))
    sizes = (0, 1, 2, 3, 4, 4, 5, 16, 17)
    numbers = (-1, 2**31, 2**62, 2**64, 2**200, 1.0, True, None, "4")

    def number():
        return chance.choice(sizes) if chance.random() < 0.97 else chance.choice(numbers)

    drawn = {
        "offset": chance.choice((0, 0, 0, number())),
        "shape": tuple(number() for _ in range(dimensions)),
        "strides": tuple(number() for _ in range(dimensions + (chance.random() < 0.03))),
        "count": chance.choice((16, 16, 16, 16, number())),
        "kind": chance.choice(("FloatStorage",) * 6 + ("DoubleStorage", "ByteStorage", "Storage")),
        "key": chance.choice(("0",) * 9 + ("7", "../data.pkl", 0, "\x1b[2J")),
    }
    return {name: value for name, value in drawn.items() if chance.random() < 0.7}


def forged_tensor(chance: random.Random, _: Path) -> Case:
    """A tensor with forged claims: taken exactly where its storage bears them out."""
    claimed = VALID | claims(chance)
    legacy = chance.random() < 0.3
    file = wrapped(tensor(legacy, **claimed))
    dtypes = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "ByteStorage": "u1"}
    shape, strides, offset, count = (claimed[n] for n in ("shape", "strides", "offset", "count"))
    numbers = (*shape, *strides, offset, count)
    dtype = np.dtype(dtypes.get(claimed["kind"], "V1"))
    storage = (STORAGE * 2)[: 16 * dtype.itemsize] if legacy else STORAGE
    if legacy:  # the count before a storage is one of elements
        file = legacy_file(file, [b""])[:-8] + struct.pack("<q", 16) + storage
    else:
        file = zip_file(file)

    if not (
        all(type(number) is int and number >= 0 for number in numbers)
        and len(shape) == len(strides) <= 32
        and claimed["kind"] in dtypes
        and claimed["key"] == "0"
        and count * dtype.itemsize <= len(storage)
    ):
        return Case(file, valid=False)
    if max(numbers) >= 2**31:
        return Case(file)  # within numpy's own limits, or not
    if 0 in shape:
        return Case(file, valid=True, tensors={"w": np.empty(shape, dtype)})
    if offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) >= count:
        return Case(file, valid=False)
    if math.prod(shape) > 10_000:
        return Case(file, valid=True, tensors={"w": None})
    steps = (np.multiply(stride, range(n)) for n, stride in zip(shape, strides, strict=True))
    positions = sum(np.ix_(*steps), start=np.array(offset)).reshape(shape)
    return Case(file, valid=True, tensors={"w": np.frombuffer(storage, dtype)[positions]})


def forged_archive(chance: random.Random, folder: Path) -> Case:
    """A zip file whose headers lie: methods, sizes, places, names, counts, the 64-bit records."""
    compression = chance.choice((zipfile.ZIP_STORED,) * 7 + (zipfile.ZIP_DEFLATED,))
    pickled = wrapped(tensor() + b"0" + tensor(key="1"))
    data = bytearray(zip_file(pickled, [STORAGE, STORAGE], compression=compression))
    if chance.random() < 0.3:
        data = bytearray((folder / "zip").read_bytes())
    starts = {
        signature: [at for at in range(len(data)) if data[at : at + 4] == signature]
        for signature in (b"PK\3\4", b"PK\1\2", b"PK\5\6")
    }
    fields = {  # position and size
        b"PK\3\4": ((6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 1)),
        b"PK\1\2": (
            (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4), (46, 1),
        ),
        b"PK\5\6": ((8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
    }  # fmt: skip
    numbers = (0, 1, 8, 64, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, len(data), len(data) // 2)
    for _ in range(chance.choice((1, 1, 2, 5))):
        signature = chance.choice(tuple(starts))
        at, size = chance.choice(fields[signature])
        at += chance.choice(starts[signature])
        number = chance.choice((
            *numbers, *starts[b"PK\3\4"], int.from_bytes(data[at : at + size], "little") + 1,
        ))  # fmt: skip
        data[at : at + size] = (number % 256**size).to_bytes(size, "little")
    if chance.random() < 0.3:
        end = data.rfind(b"PK\5\6")
        count, size, offset = struct.unpack_from("<10xHLL", data, end)
        truth = [count, size, offset]
        for index in range(3):
            if chance.random() < 0.3:
                truth[index] = chance.choice((*numbers, 2**62, 2**64 - 1))
        record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, truth[0], *truth)
        place = chance.choice((end, end, 0, 2**63, len(data)))
        data[end:end] = record + struct.pack("<4sLQL", b"PK\6\7", 0, place, 1)
    return Case(bytes(data))


def forged_header(chance: random.Random, _: Path) -> Case:
    """A safetensors file whose header lies about tensors of 64 bytes; their library judges it."""
    header = {
        "a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
        "b": {"dtype": "F64", "shape": [4], "data_offsets": [32, 64]},
    }
    values = (
        None, True, -1, 0, 1, 3, 8, 2**31, 2**63, 2**64, 10**400, 0.5, 1e400, "F16", "F32", "I8",
        "Q4", "", [], {}, [2], [2, 2], [0], [0, 32], [32, 64], [64, 0], [-1, 8], [4, 2**62], [[2]],
        [1] * 70, {"a": 1}, [0, 64], "24",
    )  # fmt: skip
    for _ in range(chance.choice((0, 1, 1, 2))):
        entry = header[chance.choice(("a", "b"))]
        if isinstance(entry, dict):
            entry[chance.choice(tuple(entry))] = chance.choice(values)
        if chance.random() < 0.1:
            header[chance.choice(("a", "b", "c", "\x1b[2J"))] = chance.choice(values)
    if chance.random() < 0.2 and isinstance(header["a"], dict):  # gaps and overlaps
        header["a"]["data_offsets"] = sorted(chance.choices((0, 16, 32, 48, 64), k=2))
    if chance.random() < 0.2:  # what a reader leaves alone
        header |= {"__metadata__": {"format": "pt"}}
    text = json.dumps(header).encode()
    if chance.random() < 0.1:
        text = text[:-1] + b', "a": {}}'
    if chance.random() < 0.2:
        text = bytearray(text)
        text[chance.randrange(len(text))] = chance.randrange(256)
    length = len(text) + chance.choice((0,) * 12 + (1, -1, 2**20, 2**40, 2**63))
    data = np.arange(64, dtype="u1").tobytes()
    file = struct.pack("<Q", length % 2**64) + text + data[: chance.choice((64,) * 8 + (0, 63))]
    file += b"x" * (chance.random() < 0.05)
    import safetensors.numpy

    try:
        return Case(file, valid=True, tensors=safetensors.numpy.load(file))
    except safetensors.SafetensorError:
        return Case(file, valid=False)


GROUPS: dict[str, tuple[int, Callable[[random.Random, Path], Case]]] = {
    "damaged zip": (1200, damaged("zip")),
    "damaged zip of protocol 4": (800, damaged("zip4")),
    "damaged legacy": (1500, damaged("legacy")),
    "damaged legacy of protocol 5": (1000, damaged("legacy5")),
    "damaged safetensors": (1000, damaged("safetensors")),
    "forged pickles": (3000, forged_pickle),
    "forged tensors": (1000, forged_tensor),
    "forged archives": (800, forged_archive),
    "forged headers": (700, forged_header),
}


def bombs() -> dict[str, Callable[[], bytes]]:
    """Small files that ask for much memory or time, by what they do."""
    reference = b"cx\ny\nq\x00"
    pickles = {
        "lists": lambda: b"]" * 149_000,
        "more lists": lambda: b"]" * 3_900_000,
        "sets": lambda: b"\x8f" * 149_000,
        "more sets": lambda: b"\x8f" * 3_900_000,
        "dictionaries": lambda: b"}" * 149_000,
        "frozen sets": lambda: b"(\x91" * 74_000,
        "tuples": lambda: b"N" + b"\x85" * 149_000,
        "marks": lambda: b"(" * 149_000,
        "objects": lambda: reference + b"h\x00)R" * 49_000,
        "objects with state": lambda: reference + b"h\x00)R}b" * 29_000,
        "memo": lambda: b"".join(b"]r" + struct.pack("<I", 9 * i) for i in range(74_000)),
        "memo of long indices": lambda: b"".join(b"]p%d\n" % (10**30 + i) for i in range(74_000)),
        "integers": lambda: (b"\x8a\xff" + b"\x7f" * 255) * 16_000,
        "long integers": lambda: b"\x8b" + struct.pack("<I", 3 << 20) + b"\x7f" * (3 << 20),
        "texts": lambda: b"".join(b"X\x08\0\0\0%08d" % i for i in range(149_000)),
        "one text": lambda: b"X" + struct.pack("<I", 4_000_000) + b"x" * 4_000_000,
        "wide text": lambda: b"X" + struct.pack("<I", 4_000_000) + "🌍".encode() * 1_000_000,
        "encoded texts": lambda: (
            b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20) + b"q\x00"
            + b"c_codecs\nencode\n(h\x00X\x06\0\0\0latin1tR" * 20_000
        ),
        "copied dictionaries": lambda: (
            b"}q\x00(" + b"".join(b"K%cN" % i for i in range(256)) * 100 + b"u"
            + b"ccollections\nOrderedDict\n(h\x00tR" * 25_000
        ),
        "copied lists": lambda: (
            b"]q\x00(" + b"N" * 50_000 + b"e" + b"ctorch\nSize\n(h\x00tR" * 25_000
        ),
        "a number beyond floating point": lambda: (
            b"c__builtin__\ncomplex\n(" + literal(2**2000) + b"tR"
        ),
        "doubled tuple": lambda: b")" + b"2\x86" * 60,
        "doubled tuple as a key": lambda: b"}" + b")" + b"2\x86" * 60 + b"Ns",
        "doubled list": lambda: b"]q\x00" + b"](h\x00h\x00eq\x00" * 60,
        "doubled tuple in an object as a key": lambda: (
            b"}" + reference + b"(" + b")" + b"2\x86" * 60 + b"tRNs"
        ),
        "long keys": lambda: b"}" + b"".join(
            literal("x" * 255 + str(i)) + b"N" + b"s" for i in range(14_000)
        ),
        "endless array as a reference": lambda: ENDLESS + b"Q",
        "endless array as arguments": lambda: b"c__builtin__\nset\n" + ENDLESS + b"R",
        "endless array as a list": lambda: b"ctorch\nSize\n(" + ENDLESS + b"tR",
        "endless array as a dictionary": lambda: b"ccollections\nOrderedDict\n(" + ENDLESS + b"tR",
        "endless array as pairs": lambda: (
            b"ccollections\nOrderedDict\n((" + ENDLESS + ENDLESS + b"lltR"
        ),
        "endless array as a number": lambda: b"c__builtin__\ncomplex\n(" + ENDLESS + b"tR",
        "endless array as a view": lambda: (
            b"(" + literal("storage") + b"ctorch\nFloatStorage\n" + literal("0") + literal("cpu")
            + literal(16) + ENDLESS + b"tQ"
        ),
        "endless array as a kind": lambda: b"(" + ENDLESS + literal("0") + b"tQ",
        "endless array appended to": lambda: ENDLESS + b"Na",
        "endless array as an encoding": lambda: (
            b"c_codecs\nencode\n(" + literal("x") + ENDLESS + b"tR"
        ),
        "colliding keys": lambda: b"}(" + b"".join(
            literal(i * (2**61 - 1)) + b"N" for i in range(70_000)
        ) + b"u",
        "endless array with state": lambda: ENDLESS + b"}b",
        "nested calls": lambda: (
            b"ctorch._tensor\n_rebuild_from_type_v2\nq\x00" * 1
            + b"(h\x00N" * 30_000 + b")NtR" + b"NtR" * 29_999
        ),
        "many references to one tensor": lambda: (
            tensor() + b"q\x000](" + b"h\x00" * 1_000 + b"eq\x010](" + b"h\x01" * 1_000 + b"e"
        ),
        "long names of one tensor": lambda: (
            tensor() + b"q\x000}X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20)
            + b"](" + b"h\x00" * 1_000 + b"es"
        ),
        "a long name": lambda: b"cx" + b"\x1b" * 4_000 + b"\ny\n)R",
        "a long key": lambda: tensor(key="\x1b" * 3_000_000),
    }  # fmt: skip
    for name, count in {"text": b"X", "bytes": b"B", "string": b"T", "integer": b"\x8b"}.items():
        pickles[f"{name} of 2 GB"] = lambda count=count: count + b"\xff\xff\xff\x7fx"
    for name, count in {"text": b"\x8d", "bytes": b"\x8e", "array": b"\x96"}.items():
        pickles[f"{name} of 4 EB"] = lambda count=count: count + b"\0" * 7 + b"\x40x"
    archives = {
        "compressed zeros": lambda: zip_file(
            wrapped(tensor(count=25 << 20)), [bytes(100 << 20)], compression=zipfile.ZIP_DEFLATED
        ),
        "a compressed pickle": lambda: zip_file(
            wrapped(b"N" * (64 << 20)), compression=zipfile.ZIP_DEFLATED
        ),
        "many entries": lambda: zip_file(wrapped(b"N"), [b""] * 49_000),
        "overlapping entries": overlapping,
    }
    headers = {
        f"{name} of {megabytes} MB": head + part * int(megabytes * 0.99e6 / len(part)) + tail
        for megabytes in (1, 2)
        for name, head, part, tail in (
            ("deep header", b"{", b'"a":{', b""),
            ("header of lists", b'{"a":[', b"[],", b"0]}"),
            ("header of dictionaries", b'{"a":[', b"{},", b"0]}"),
            ("header of pairs", b'{"a":[', b'{"a":0},', b"0]}"),
            ("header of numbers", b'{"a":[', b"1e9,", b"0]}"),
            ("header of texts", b'{"a":[', b'"\\ud83c\\udf0d",', b"0]}"),
            ("header of one integer", b'{"a":', b"9", b"}"),
            (
                "header of a huge shape",
                b'{"a":{"dtype":"F32","data_offsets":[0,0],"shape":[',
                b"9" * 4_000 + b",",
                b"0]}}",
            ),
        )
    }
    headers["header of names"] = (
        b"{" + b",".join(b'"%d":0' % i for i in range(10_000, 90_000)) + b"}"
    )

    def held(container, program):
        return lambda: container(wrapped(program()))

    return {
        **{
            f"{name} in a {container.__name__}": held(container, program)
            for name, program in pickles.items()
            for container in CONTAINERS
        },
        **archives,
        **{
            name: lambda text=text: struct.pack("<Q", len(text)) + text
            for name, text in headers.items()
        },
    }


def overlapping() -> bytes:
    """Thousands of entries that share the same 3 MB, and a tensor in each."""
    keys = range(9_000)
    tensors = b"".join(tensor(key=f"{key}") + b"0" for key in keys)
    data = bytearray(zip_file(wrapped(tensors + b"N"), []))
    end = data.rfind(b"PK\5\6")
    count, _, directory = struct.unpack_from("<10xHLL", data, end)
    entries = bytes(data[directory:end])
    del data[directory:]
    names = [f"archive/data/{key}".encode() for key in keys]
    stop = len(data) + sum(30 + len(name) for name in names) + (3 << 20)
    for name in names:  # each entry's data are the headers after it and the common end
        place, size = len(data), stop - len(data) - 30 - len(name)
        facts = (10, 0, 0, 0, 0, 0, size, size, len(name), 0)
        data += struct.pack("<4s5H3L2H", b"PK\3\4", *facts) + name
        entries += struct.pack("<4s6H3L5H2L", b"PK\1\2", 10, *facts, 0, 0, 0, 0, place) + name
    data += bytes(3 << 20)
    count += len(names)
    size, directory = len(entries), len(data)
    return bytes(
        data + entries + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, directory, 0)
    )


# The process that reads them.


def cases(group: str, folder: Path, path: Path) -> Iterator[tuple[str, Case]]:
    """The cases of a group by name, each with its file at `path`."""
    if group == "bombs":
        for name, make in bombs().items():
            # By a child, so that no memory stays behind which reading could use unnoticed.
            if (child := os.fork()) == 0:
                path.write_bytes(make())
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            yield name, Case()
        return
    count, make = GROUPS[group]
    for index in range(count):
        case = make(random.Random(f"{group} {index}"), folder)
        path.write_bytes(case.data)
        yield str(index), case


class Watch:
    """An audit hook that, while `path` is being read, notes what that takes no part in."""

    def __init__(self):
        self.path: Path | None = None
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.path is None:
            return
        if event in FORBIDDEN or (event == "open" and arguments[0] != str(self.path)):
            self.seen.append(f"{event} {arguments!r:.200}")


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Address space of `size` bytes."""
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)


def run(folder: Path, group: str, only: str | None = None) -> None:
    """Read every case of a group; exits with what went wrong in which."""
    import safetensors.numpy  # noqa: F401

    for kind in ("zip", "legacy", "safetensors"):  # loads what reading loads, once
        check(tensors_by_name(read_checkpoint(folder / kind)), (folder / kind).stat().st_size)
    codecs.lookup("raw_unicode_escape")
    sys.addaudithook(watch := Watch())
    gc.collect()
    gc.freeze()  # what is loaded need not be looked through again after every case
    begun = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

    path, faults, outcomes, longest = Path(f"{group}.bin"), [], collections.Counter(), (0.0, "")
    for name, case in cases(group, folder, path):
        if only in (None, name):
            with limited(begun + path.stat().st_size + MARGIN):
                seconds, outcome, found = trial(case, path, watch)
            faults += [f"{name}: {fault}" for fault in found]
            outcomes[outcome] += 1
            longest = max(longest, (seconds, name))
            if group == "bombs" or name.endswith("00"):
                gc.collect()
    print(dict(outcomes), longest)
    if faults:
        sys.exit("\n".join(faults[:20]))


def trial(case: Case, path: Path, watch: Watch) -> tuple[float, str, list[str]]:
    """Read a case: the processor time it took, how it ended, and what is wrong with that."""
    faults, begun = [], time.process_time()
    watch.path = path
    try:
        tensors = tensors_by_name(read_checkpoint(path))
        watch.path, outcome = None, "read"
        check(tensors, path.stat().st_size, case.tensors)
        if case.valid is False:
            faults.append(f"read though invalid: {list(tensors)}")
    except InputError as error:
        outcome = "refused"
        if case.valid or isinstance(error.__cause__, MemoryError):
            faults.append(f"refused: {error!s:.300}")
        if not str(error).isprintable() or len(str(error)) > 500:
            faults.append(f"says {str(error)!r:.300}")
    except BaseException as error:
        outcome = "failed"
        faults.append(f"{type(error).__name__}: {error!s:.300}")
    watch.path = None
    if (seconds := time.process_time() - begun) > SECONDS:
        faults.append(f"{seconds:.0f} seconds")
    if Path("mark").exists() or "fuzz_canary" in sys.modules:
        faults.append("code of the file ran")
    faults += watch.seen
    watch.seen.clear()
    return seconds, outcome, faults


def check(tensors: dict, size: int, expected: dict | None = None) -> None:
    """Every array is a view inside the file of `size` bytes, and what was expected if anything."""
    for array in tensors.values():
        if array.size == 0:
            continue
        root = array
        while isinstance(root, np.ndarray):
            root = root.base
        file = np.frombuffer(root, np.uint8)
        start = file.__array_interface__["data"][0]
        low, high = np.lib.array_utils.byte_bounds(array)
        assert file.size == size
        assert start <= low <= high <= start + size, "an array lies outside the file"
        assert not array.flags.writeable
        file[low - start : high - start].sum()
        array[(-1,) * array.ndim].item()
        if array.size < 10_000:
            array.copy()
    if expected is not None:
        assert set(tensors) == set(expected), "other tensors than expected"
        for name, array in expected.items():
            if array is not None:
                assert tensors[name].dtype == array.dtype
                np.testing.assert_array_equal(tensors[name], array)


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "expected.npz") as arrays:
        return dict(arrays)


# The tests.


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files that the cases start from, made by the original libraries, and the canary."""
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    folder = tmp_path_factory.mktemp("fuzz")
    base = torch.arange(24.0).reshape(2, 3, 2, 2)
    tensors = {
        "conv1.weight": base,
        "view": base[1, :, ::2, 1],
        "half": torch.arange(5).half(),
        "count": torch.tensor(3),
        "empty": torch.zeros(0, 4),
    }
    expected = {f"state.{name}": value.numpy() for name, value in tensors.items()}
    np.savez(folder / "expected.npz", **expected)
    content = {"state": tensors, "epoch": 3, "args": {"lr": 0.1, "name": "é"}, "more": [None, (1,)]}
    torch.save(content, folder / "zip")
    torch.save(content, folder / "zip4", pickle_protocol=4)
    legacy = {"_use_new_zipfile_serialization": False}
    torch.save(content, folder / "legacy", **legacy)
    torch.save(content, folder / "legacy5", pickle_protocol=5, **legacy)
    for name in ("zip", "zip4"):
        with zipfile.ZipFile(folder / name) as archive:
            (folder / f"{name}.pkl").write_bytes(archive.read(f"{name}/data.pkl"))
    tensors["view"] = tensors["view"].contiguous()
    safetensors.save_file(tensors, folder / "safetensors")
    (folder / "fuzz_canary.py").write_text(CANARY)
    return folder


@pytest.mark.parametrize("group", [*GROUPS, "bombs"])
def test_a_file_is_refused_or_read_right(folder, group, tmp_path):
    # The worker imports what this process imports, and could import the canary.
    paths = os.pathsep.join([*filter(None, sys.path), str(folder)])
    environment = os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, folder, group],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{group} in {folder}:\n{done.stdout}{done.stderr}"


def test_there_are_ten_thousand():
    assert sum(count for count, _ in GROUPS.values()) >= 10_000


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_attacks_are_real(folder, attack, tmp_path, monkeypatch):
    """Python's own unpickler executes each of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "fuzz_canary", raising=False)
    pickle.loads(wrapped(attack))
    assert (tmp_path / "mark").exists()
    sys.modules.pop("fuzz_canary", None)


def test_valid_files_are_read(folder, tmp_path):
    """What the forgers start from is valid, so that their cases differ in the forgery alone."""
    for container, legacy in itertools.product(CONTAINERS, (False, True)):
        if (container is legacy_file) == legacy:
            (tmp_path / "x").write_bytes(container(wrapped(tensor(legacy))))
            read = read_checkpoint(tmp_path / "x")["w"]
            np.testing.assert_array_equal(read, np.arange(16.0).reshape(4, 4))
    (tmp_path / "x").write_bytes(forged_header(StraightRandom(), folder)[0])
    np.testing.assert_array_equal(
        read_checkpoint(tmp_path / "x")["b"], np.arange(64, dtype="u1")[32:].view("f8")
    )


class StraightRandom(random.Random):
    """Chooses the first of everything, and never takes a chance."""

    def choice(self, options):
        return options[0]

    def random(self):
        return 1.0


if __name__ == "__main__":
    run(Path(sys.argv[1]), *sys.argv[2:])
