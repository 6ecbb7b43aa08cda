"""Kept feature maps on their way to the devices."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from made_up_features import three_chips

from jaxcrop.features.backbones import FrozenBackbone
from jaxcrop.features.bank import FeatureBank
from jaxcrop.features.maps import IN_MEMORY, feature_maps
from jaxcrop.features.store import FeatureStore
from jaxcrop.models.segmenter import random_segmenter
from jaxcrop.weights import band_input

pytestmark = pytest.mark.usefixtures("small_backbones")


@pytest.fixture(scope="module")
def backbone():
    seen = band_input("satlas")
    model = random_segmenter("resnet18", "linear", len(seen.bands), 6, seed=0)
    return FrozenBackbone.of(model, "resnet18", seen)


@pytest.fixture(scope="module")
def chips(synthetic_records):
    return three_chips(synthetic_records)


def test_arrays_are_filled_with_what_is_kept_and_taken_without_a_copy(backbone, chips):
    bank = FeatureBank(backbone, {"africa": chips}, IN_MEMORY)
    maps, label = bank.arrays(2, 2)
    for array in (*maps, label):
        taken = jax.device_put(array[:1], jax.local_devices()[0])
        assert taken.unsafe_buffer_pointer() == array.ctypes.data
    label[0] = 5
    bank.fill((tuple(x[0] for x in maps), label[0]), [("africa", chips.ids[2])])
    want = feature_maps(backbone, chips, dtype="float32")
    for array, kept in zip(maps, want.maps, strict=True):
        np.testing.assert_array_equal(array[0, 0], kept[2])
        assert not array[1].any()
    np.testing.assert_array_equal(label[0, 0], want.label[2])
    assert not label[0, 1].any()


def test_threads_that_ask_for_the_same_maps_wait_for_the_first(backbone, chips):
    told = []
    bank = FeatureBank(backbone, {"africa": chips}, IN_MEMORY, say=told.append)

    def filled(view):
        arrays = bank.arrays(1)
        bank.fill(arrays, [("africa", chips.ids[0])], np.array([view]))
        return arrays

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(filled, [0, 1, 0, 1]))
    assert len(told) == len(set(told))
    for one, other in zip(found[:2], found[2:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    assert not np.array_equal(found[0][0][0], found[1][0][0])


def test_what_is_kept_takes_no_memory_once_it_is_read(backbone, chips, tmp_path):
    bank = FeatureBank(backbone, {"africa": chips}, FeatureStore(tmp_path))
    arrays = bank.arrays(3)
    for _ in range(2):
        bank.fill(arrays, [("africa", chip_id) for chip_id in chips.ids])
        mapped, resident = _mapped(tmp_path)
        assert mapped > sum(x.nbytes for x in arrays[0]) / 2000
        assert resident == 0


def _mapped(folder) -> tuple[int, int]:
    """KiB of this process's address space that files of a folder take, and of its memory."""
    sizes, inside = {"Size": 0, "Rss": 0}, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if " " in name:  # the head of a mapping ends with its file
            inside = str(folder) in line
        elif inside and name in sizes:
            sizes[name] += int(rest.split()[0])
    return sizes["Size"], sizes["Rss"]
