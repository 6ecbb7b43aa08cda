"""Kept feature maps on their way to the devices."""

import jax
import numpy as np
import pytest

from jaxcrop.data.index import index_of
from jaxcrop.features.backbones import FrozenBackbone
from jaxcrop.features.bank import FeatureBank
from jaxcrop.features.maps import IN_MEMORY, ChipSet, feature_maps
from jaxcrop.models.segmenter import random_segmenter
from jaxcrop.weights import band_input

pytestmark = pytest.mark.usefixtures("small_backbones")


def test_arrays_are_filled_with_what_is_kept_and_taken_without_a_copy(synthetic_records):
    seen = band_input("satlas")
    model = random_segmenter("resnet18", "linear", len(seen.bands), 6, seed=0)
    backbone = FrozenBackbone.of(model, "resnet18", seen)
    index = index_of(synthetic_records)
    chips = ChipSet(synthetic_records, index, tuple(sorted(index.chip_id)[:3]))
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
