"""Arrays kept in a folder: mapped, made once, whole or not at all."""

import multiprocessing
import time

import numpy as np
import pytest

from jaxcrop.errors import InputError
from jaxcrop.features.store import FeatureStore, Spec

SPECS = {"a": Spec((5, 3), "float16"), "b": Spec((5,), "uint8")}
A = np.arange(15, dtype=np.float16).reshape(5, 3)
B = np.arange(5, dtype=np.uint8)


def blocks(calls: list | None = None):
    def compute():
        if calls is not None:
            calls.append(1)
        for start in (0, 2, 4):
            yield {"a": A[start : start + 2], "b": B[start : start + 2]}

    return compute


def same(found):
    np.testing.assert_array_equal(found["a"], A)
    np.testing.assert_array_equal(found["b"], B)


def test_what_was_computed_is_mapped_the_next_time(tmp_path):
    store, calls = FeatureStore(tmp_path / "deep" / "store"), []
    assert not store.has({"x": 1})
    for _ in range(2):
        found = store.arrays({"x": 1}, SPECS, blocks(calls))
        same(found)
        assert isinstance(found["a"], np.memmap)
        assert not found["a"].flags.writeable
    assert calls == [1]
    assert store.has({"x": 1})
    assert store.size > A.nbytes + B.nbytes
    same(store.arrays({"x": 2}, SPECS, blocks(calls)))
    assert calls == [1, 1]


def test_a_type_that_files_have_no_name_for_is_kept(tmp_path):
    calls, specs = [], {"a": Spec((5, 3), "bfloat16"), "b": SPECS["b"]}
    for _ in range(2):
        found = FeatureStore(tmp_path).arrays({}, specs, blocks(calls))["a"]
        assert found.dtype == "bfloat16"
        np.testing.assert_array_equal(found, A)
    assert calls == [1]


def test_memory_keeps_nothing():
    store, calls = FeatureStore(None), []
    for _ in range(2):
        same(store.arrays({}, SPECS, blocks(calls)))
    assert calls == [1, 1]
    assert not store.has({})


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "header", "about", "other shape"])
def test_a_damaged_entry_is_computed_again(tmp_path, damage):
    calls = []
    FeatureStore(tmp_path).arrays({}, SPECS, blocks(calls))
    (about,) = tmp_path.glob("*/about.json")
    file = about.with_name("a.npy")
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[:-1])
    elif damage == "flipped":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "header":
        file.write_bytes(b"\0" * len(content))
    elif damage == "about":
        about.write_text("{")
    elif damage == "other shape":
        np.save(file, A[:4])
    else:
        file.unlink()
    for _ in range(2):
        same(FeatureStore(tmp_path).arrays({}, SPECS, blocks(calls)))
    assert calls == [1, 1]


def test_a_failure_leaves_nothing(tmp_path):
    def breaks_off():
        yield {"a": A[:2], "b": B[:2]}
        raise InputError("no more")

    store = FeatureStore(tmp_path)
    with pytest.raises(InputError, match="no more"):
        store.arrays({}, SPECS, breaks_off)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    with pytest.raises(ValueError, match="2 rows were computed"):
        store.arrays({}, SPECS, lambda: iter([{"a": A[:2], "b": B[:2]}]))
    same(store.arrays({}, SPECS, blocks()))


def test_a_folder_that_cannot_be_written_is_bad_input(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="features cannot be kept in"):
        FeatureStore(tmp_path / "file").arrays({}, SPECS, blocks())


def _slowly(folder, counter):
    def compute():
        with counter.get_lock():
            counter.value += 1
        time.sleep(0.5)
        yield from blocks()()

    same(FeatureStore(folder).arrays({}, SPECS, compute))


def test_of_several_processes_one_computes_and_the_others_wait(tmp_path):
    context = multiprocessing.get_context("forkserver")
    counter = context.Value("i", 0)
    workers = [context.Process(target=_slowly, args=(tmp_path, counter)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert counter.value == 1
