"""Maps of frozen backbones beside what the segmenters of the same weights see."""

from zlib import crc32

import numpy as np
import pytest
from flax import nnx
from made_up_features import ARCHITECTURES, INPUT, images_and_labels, segmenter, three_chips

from jaxcrop.data.augment import augment, normalise
from jaxcrop.features.backbones import FrozenBackbone, View
from jaxcrop.features.maps import feature_maps


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return request.param, segmenter(request.param)


@pytest.fixture(scope="module")
def raw():
    """The backbone that costs nothing."""
    return FrozenBackbone.raw()


@pytest.fixture(scope="module")
def chips(synthetic_records):
    return three_chips(synthetic_records)


def test_maps_are_those_of_the_backbone_in_eval_mode(model, chips):
    backbone = FrozenBackbone.of(model[1], model[0], INPUT)
    image, label = images_and_labels(chips, INPUT)
    missing = -image.shape[1] % backbone.multiple
    padded = np.pad(image, ((0, 0), (0, missing), (0, missing), (0, 0)), mode="edge")
    want = nnx.jit(model[1].backbone)(normalise(padded, INPUT))
    found = feature_maps(backbone, chips, dtype="float32", batch_size=1)
    assert len(found.maps) == len(want)
    for ours, theirs in zip(found.maps, want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(abs(theirs).max()))
    np.testing.assert_array_equal(found.label, label)
    half = feature_maps(backbone, chips, dtype="float16").maps
    np.testing.assert_allclose(half[0], found.maps[0], rtol=1e-3, atol=1e-3)


def test_a_view_is_the_augmentation_of_training_for_image_and_labels_alike(raw, chips):
    view = View(2, seed=5)
    image, label = images_and_labels(chips, raw.band_input)
    want, turned = augment(
        view.keys(np.array([crc32(i.encode()) for i in chips.ids], np.uint32)),
        normalise(image, raw.band_input),
        label,
    )
    found = feature_maps(raw, chips, view, dtype="float32")
    np.testing.assert_allclose(found.maps[0], want, atol=1e-5)
    np.testing.assert_array_equal(found.label, turned)
    assert (found.label != label).any()
