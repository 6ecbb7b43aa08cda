import io

import ml_dtypes
import numpy as np
import pytest

from jaxcrop.weights.safetensors import (
    Spec,
    map_file,
    parse_safetensors,
    release,
    write_safetensors,
)

safetensors = pytest.importorskip("safetensors.numpy")


def tensors():
    chance = np.random.default_rng(0)
    return {
        "count": np.array(3, np.int64),
        "empty": np.zeros((0, 4), np.float32),
        "kernel": chance.normal(size=(3, 3, 5, 7)).astype(np.float32),
        "half": chance.normal(size=5).astype(np.float16),
    }


def written(arrays):
    file = io.BytesIO()
    specs = {name: Spec(array.dtype, array.shape) for name, array in arrays.items()}
    write_safetensors(file, specs, arrays.values())
    return file.getvalue()


def assert_same(got, want):
    assert list(got) == list(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def test_the_formats_own_library_reads_what_is_written():
    found = safetensors.load(written(tensors()))
    assert_same({name: found[name] for name in tensors()}, tensors())


def test_what_the_formats_own_library_writes_is_read(tmp_path):
    safetensors.save_file(tensors(), tmp_path / "file")
    buffer = map_file(tmp_path / "file")
    found = parse_safetensors(buffer)
    assert_same({name: found[name] for name in tensors()}, tensors())
    assert not found["kernel"].flags.writeable
    release(found["kernel"])
    np.testing.assert_array_equal(found["kernel"], tensors()["kernel"])


def test_bfloat16_is_written_too():
    array = np.arange(4, dtype=ml_dtypes.bfloat16)
    found = parse_safetensors(memoryview(written({"x": array})))
    assert_same(found, {"x": array})


def test_an_array_must_be_as_announced():
    specs = {"x": Spec(np.dtype(np.float32), (2, 3))}
    for array in (np.zeros((3, 2), np.float32), np.zeros((2, 3)), np.zeros((3, 2), np.float32).T):
        with pytest.raises(ValueError, match="announced as"):
            write_safetensors(io.BytesIO(), specs, [array])
