import argparse
import collections
import importlib
import pickle
import random
import struct
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest

from jaxcrop.errors import InputError
from weights_convert.pickles import Inert
from weights_convert.reader import read_checkpoint

torch = pytest.importorskip("torch")

FORMATS = {
    "zip": {},
    "zip, protocol 4": {"pickle_protocol": 4},
    "legacy": {"_use_new_zipfile_serialization": False},
    "legacy, protocol 5": {"_use_new_zipfile_serialization": False, "pickle_protocol": 5},
}
DTYPES = (
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
    "bool", "complex64", "complex128", "uint16", "uint32", "uint64",
    "float8_e4m3fn", "float8_e5m2",
)  # fmt: skip


@pytest.fixture(params=FORMATS.values(), ids=FORMATS)
def save(request, tmp_path):
    def save(content):
        torch.save(content, tmp_path / "file.bin", **request.param)
        return tmp_path / "file.bin"

    return save


def assert_same(ours, theirs):
    """Compare with torch.load's answer: types, shapes and bytes."""
    if isinstance(theirs, torch.Tensor):
        assert ours.dtype.name == str(theirs.dtype).removeprefix("torch.")
        assert ours.shape == tuple(theirs.shape)
        data = theirs.detach().contiguous().flatten().view(torch.uint8).numpy()
        assert ours.tobytes() == data.tobytes()
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert_same(ours[key], value)
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert ours == theirs
        assert type(ours) is type(theirs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_read_as_torch_wrote_it(save, dtype):
    raw = torch.randint(0, 2 if dtype == "bool" else 256, (96,), dtype=torch.uint8)
    content = {"x": raw.view(getattr(torch, dtype))}
    # torch.load itself fails on unsigned integers and float8 in the legacy format.
    assert_same(read_checkpoint(save(content)), content)


def test_views_and_shared_storages_are_read_as_torch_reads_them(save):
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    content = {
        "base": base,
        "transposed": base.t(),
        "inner": base[1:5:2, 2:7:3],
        "offset": base[3],
        "scalar": base[2, 2],
        "expanded": base[:1].expand(5, 8),
        "overlapping": base.flatten().unfold(0, 4, 1),
        "empty": base[:0],
        "empty, no storage": torch.empty(0, 3),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    path = save(content)
    ours = read_checkpoint(path)
    assert_same(ours, torch.load(path, weights_only=False))
    assert np.shares_memory(ours["base"], ours["transposed"])


def test_containers_and_values_are_read_as_torch_reads_them(save):
    content = collections.OrderedDict(
        state=torch.nn.Linear(3, 2).state_dict(),  # an OrderedDict with an attribute
        parameter=torch.nn.Parameter(torch.ones(2)),
        default=collections.defaultdict(list, {1: [2.5]}),
        values=[None, True, False, 1, -1, 255, 65536, 2**40, -(2**70), 0.1, "é", "x" * 300],
        nested=({"a": [(), {}, []]}, (1,), (1, 2), (1, 2, 3, 4)),
        raw=b"\0\xff",
        members={1, 2},
        number=1 + 2j,
    )
    content.update({("tuple", 1): 1, 2: "integer key"})
    path = save(content)
    assert_same(read_checkpoint(path), torch.load(path, weights_only=False))


def test_optimizer_state_and_size_are_read(save):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    path = save({"optimizer": optimizer.state_dict(), "size": torch.Size([1, 2])})
    assert_same(read_checkpoint(path), torch.load(path, weights_only=False))


def test_unknown_classes_become_inert(save):
    content = {"args": argparse.Namespace(epochs=3), "scalar": np.float32(2), "w": torch.ones(1)}
    ours = read_checkpoint(save(content))
    assert isinstance(ours["args"], Inert)
    assert (ours["args"].name, ours["args"].state) == ("argparse.Namespace", {"epochs": 3})
    assert isinstance(ours["scalar"], Inert)
    np.testing.assert_array_equal(ours["w"], [1])


def test_a_whole_model_is_refused_by_name(save):
    with pytest.raises(InputError, match=r"holds a .*Linear, not a dictionary.*state_dict"):
        read_checkpoint(save(torch.nn.Linear(2, 2)))


def test_safetensors_are_read_as_their_library_reads_them(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    content = {
        dtype: torch.randint(0, 2, (24,), dtype=torch.uint8).view(getattr(torch, dtype))
        for dtype in DTYPES
        if dtype != "complex128"
    } | {"scalar": torch.tensor(3.0), "empty": torch.zeros(0, 4), "matrix": torch.randn(3, 5)}
    path = tmp_path / "no-extension"
    safetensors.save_file(content, path, metadata={"format": "pt"})
    ours, theirs = read_checkpoint(path), safetensors.load_file(path)
    assert set(ours) == set(theirs)
    for name in theirs:
        assert_same(ours[name], theirs[name])


def test_reading_does_not_copy_the_tensors(save):
    path = save({"x": torch.zeros(4_000_000), "y": torch.zeros(4_000_000)})
    tracemalloc.start()
    content = read_checkpoint(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert content["x"].nbytes == 16_000_000
    assert peak < 1_000_000


# Forged and malicious files.


def write_zip(path, data, storage=bytes(64), **options):
    """A checkpoint in the zip format from the bytes of its pickle and of its one storage."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", storage)
    return path


def literal(value):
    """The instructions that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


VALID = {
    "offset": 0,
    "shape": (4, 4),
    "strides": (4, 1),
    "count": 16,
    "kind": "FloatStorage",
    "key": "0",
}


def tensor(**claims):
    """A pickle of {"w": tensor}, with whatever is claimed of it."""
    claims = VALID | claims
    storage = b"(" + literal("storage") + f"ctorch\n{claims['kind']}\n".encode()
    storage += literal(claims["key"]) + literal("cpu") + literal(claims["count"]) + b"tQ"
    view = literal(claims["offset"]) + literal(claims["shape"]) + literal(claims["strides"])
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"\x89NtR"
    return b"\x80\x02}" + literal("w") + call + b"s."


def test_the_hand_made_tensor_is_valid(tmp_path):
    path = write_zip(tmp_path / "x.pth", tensor(), np.arange(16, dtype="f4").tobytes())
    np.testing.assert_array_equal(read_checkpoint(path)["w"], np.arange(16.0).reshape(4, 4))


@pytest.mark.parametrize(
    "claim",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**70},
        {"shape": (5, 4)},
        {"shape": (4, 2**62)},
        {"shape": (-4, 4)},
        {"shape": (4.0, 4)},
        {"shape": (True, 4)},
        {"shape": [4, 4]},
        {"shape": (1,) * 100, "strides": (1,) * 100},
        {"shape": (4,)},
        {"strides": (4, 2)},
        {"strides": (-4, 1)},
        {"strides": (2**61, 1)},
        {"count": 17},
        {"count": -1},
        {"count": "16"},
        {"kind": "DoubleStorage"},
        {"kind": "QInt8Storage"},
        {"key": "1"},
        {"key": 0},
        {"key": "../data.pkl"},
    ],
    ids=str,
)
def test_tensors_beyond_their_storage_are_refused(tmp_path, claim):
    path = write_zip(tmp_path / "forged.pth", tensor(**claim))
    with pytest.raises(InputError, match=r"forged\.pth"):
        read_checkpoint(path)


def wrapped(value):
    """A pickle of {"w": value}, from the instructions that push the value."""
    return b"\x80\x02}" + literal("w") + value + b"s."


HUGE = struct.pack("<Q", 2**62)


def doubled_tuple(levels):
    """A tuple of two copies of a tuple of two copies..., 2**levels leaves in `levels` bytes."""
    return b")" + b"2\x86" * levels


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wrapped(b"]" * 5_000 + b"a" * 4_999), "nest deeper"),
        (wrapped(b"]q\x00h\x00a"), "nest deeper"),  # a list that holds itself
        (wrapped(doubled_tuple(40) + b"0}" + doubled_tuple(40) + b"Ns"), "unusual type"),
        (wrapped(b"]" * 1_000_000), "more than .* instructions"),
        (wrapped(b"\x8f" * 1_000_000), "more than .* instructions"),
        (wrapped(b"]q\x00(" + b"N" * 50_000 + b"e" + b"c__builtin__\nset\nh\x00\x85R" * 5), "more"),
        (wrapped(b"\x8d" + HUGE + b"x"), "longer than"),  # BINUNICODE8
        (wrapped(b"\x96" + HUGE + b"x"), "longer than"),  # BYTEARRAY8
        (wrapped(b"X" + struct.pack("<I", 8 << 20) + b"x" * (8 << 20)), "longer than"),
        (wrapped(b"\x8b\xff\xff\0\0" + b"\x7f" * 0xFFFF), "absurdly large"),
        (wrapped(b"I" + b"9" * 100_000 + b"\n"), "damaged"),
        (wrapped(b"\x82\x01"), "EXT1"),  # copyreg's extension registry
        (wrapped(b"Pname\n"), "PERSID"),
        (wrapped(b"K\x01)R"), "no named function"),
        (wrapped(b"N)\x81"), "no named function"),
        (wrapped(b"0" * 10), "damaged"),
        (wrapped(b"h\x07"), "damaged"),  # an unset memo
        (wrapped(b"\xfa"), "damaged"),  # an unknown instruction
        (b"\x80\x02}", "damaged"),
        (b"", "damaged"),
        (b"\x80\x02N.", "holds a NoneType"),
    ],
)
def test_extreme_pickles_are_refused_within_little_memory(tmp_path, data, reason):
    path = write_zip(tmp_path / "forged.pth", data)
    del data
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"forged\.pth.*{reason}"):
        read_checkpoint(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20


def test_an_endless_array_is_not_iterated(tmp_path):
    endless = tensor(shape=(2**40,), strides=(0,))
    assert read_checkpoint(write_zip(tmp_path / "a.pth", endless))["w"].shape == (2**40,)
    call = b"c__builtin__\nset\n" + endless[len(b"\x80\x02}" + literal("w")) : -2] + b"\x85R"
    with pytest.raises(InputError, match="container"):
        read_checkpoint(write_zip(tmp_path / "b.pth", wrapped(call)))


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that leaves a mark when imported, and classes that leave one when unpickled."""
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(
        f"def mark(*_):\n    open({str(mark)!r}, 'w').close()\n"
        "mark()\n"
        "class Reduced:\n    def __reduce__(self): return mark, ('x',)\n"
        "class Built:\n    value = 1\n    def __getstate__(self): return {'x': 1}\n"
        "    def __setstate__(self, state): mark()\n"
        "class New:\n    def __new__(cls, *args): mark(); return object.__new__(cls)\n"
        "    def __getnewargs__(self): return ('x',)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("evil"), mark
    sys.modules.pop("evil", None)


def test_nothing_in_a_pickle_is_imported_or_called(save, evil):
    module, mark = evil
    path = save({"r": module.Reduced(), "b": module.Built(), "n": module.New(), "f": module.mark})
    del sys.modules["evil"]
    mark.unlink()
    content = read_checkpoint(path)
    assert not mark.exists()
    assert "evil" not in sys.modules
    assert (content["r"].name, content["r"].args) == ("evil.mark", ("x",))
    assert content["b"].state == {"x": 1}
    assert content["n"].args[-1] == "x"
    torch.load(path, weights_only=False)  # the file is indeed dangerous
    assert mark.exists()


@pytest.mark.parametrize(
    "call",
    [
        b"(S'{}'\niposix\nsystem\n",  # INST
        b"(cposix\nsystem\nS'{}'\no",  # OBJ
        b"cposix\nsystem\n(S'{}'\ntR",  # REDUCE
        b"\x8c\x05posix\x8c\x06system\x93S'{}'\n\x85R",  # STACK_GLOBAL
        b"cposix\nsystem\nS'{}'\n\x85\x81",  # NEWOBJ
        b"cposix\nsystem\nS'{}'\n\x85}\x92",  # NEWOBJ_EX
    ],
)
def test_every_way_of_calling_a_function_stays_inert(tmp_path, call):
    mark = tmp_path / "mark"
    command = f"touch {mark}"
    path = write_zip(tmp_path / "x.pth", wrapped(call.replace(b"{}", command.encode())))
    made = read_checkpoint(path)["w"]
    assert (made.name, made.args) == ("posix.system", (command,))
    assert not mark.exists()


def test_compressed_entries_are_refused_without_inflating_them(tmp_path):
    bomb = bytes(100 << 20)
    path = write_zip(tmp_path / "bomb.pth", tensor(), bomb, compression=zipfile.ZIP_DEFLATED)
    del bomb
    tracemalloc.start()
    with pytest.raises(InputError, match=r"bomb\.pth.*compressed"):
        read_checkpoint(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>", "neither a PyTorch nor a safetensors"),
        (pickle.dumps({"a": 1}), "a pickle that torch.save did not write"),
        (struct.pack("<Q", 2**40) + b"{}", "cut off"),
        (struct.pack("<Q", 2) + b"{}x", "belong to no tensor"),
        (struct.pack("<Q", 100_000) + b'{"a":' * 20_000, "damaged"),
    ],
)
def test_foreign_files_are_refused(tmp_path, content, reason):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.pth.*{reason}"):
        read_checkpoint(tmp_path / "x.pth")


def test_files_that_cannot_be_opened_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"absent\.pth: No such file"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(InputError, match="Is a directory"):
        read_checkpoint(tmp_path)


def test_other_zip_files_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with pytest.raises(InputError, match=r"zip file that torch.save did not write"):
        read_checkpoint(tmp_path / "x.npz")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "x.pt")
    with pytest.raises(InputError, match="TorchScript"):
        read_checkpoint(tmp_path / "x.pt")


def mutants(data, count):
    """Copies of `data`, damaged in the ways of disks, networks and attackers."""
    chance = random.Random(0)
    for _ in range(count):
        mutant = bytearray(data)
        match chance.randrange(4):
            case 0:
                del mutant[chance.randrange(len(data)) :]
            case 1:
                start = chance.randrange(len(data))
                mutant[start : start + 8] = chance.randbytes(8)
            case 2:
                start = chance.randrange(len(data))
                del mutant[start : start + chance.randrange(1, 9)]
            case 3:
                for _ in range(chance.randrange(1, 4)):
                    mutant[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        yield bytes(mutant)


def small_checkpoint():
    return {
        "conv1.weight": torch.arange(24.0).reshape(2, 3, 2, 2),
        "bn1": {"mean": torch.ones(2).bfloat16(), "num_batches_tracked": torch.tensor(3)},
        "args": argparse.Namespace(lr=0.1),
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_checkpoints_are_refused_or_read(tmp_path, kind):
    path = tmp_path / "x.pth"
    torch.save(small_checkpoint(), path, **FORMATS[kind])
    intact, refused = torch.load(path, weights_only=False), 0
    for mutant in mutants(path.read_bytes(), 300):
        path.write_bytes(mutant)
        try:
            ours = read_checkpoint(path)
        except InputError:
            refused += 1
            continue
        if kind.startswith("zip"):  # its checksums vouch for every byte that matters
            for name in ("conv1.weight", "bn1"):
                assert_same(ours[name], intact[name])
    assert refused > 100


def test_damaged_safetensors_are_refused_or_read(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "x.safetensors"
    safetensors.save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2).half()}, path)
    refused = 0
    for mutant in mutants(path.read_bytes(), 300):
        path.write_bytes(mutant)
        try:
            assert all(isinstance(value, np.ndarray) for value in read_checkpoint(path).values())
        except InputError:
            refused += 1
    assert refused > 100
