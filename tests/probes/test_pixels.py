"""Hypercolumns of frozen backbones beside what the segmenters of the same weights see."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from made_up_features import ARCHITECTURES, INPUT, images_and_labels, segmenter, three_chips

from jaxcrop.compiling import shared
from jaxcrop.crops import NUM_CLASSES
from jaxcrop.data.augment import normalise
from jaxcrop.data.bands import SENTINEL2_BANDS, BandInput
from jaxcrop.errors import InputError
from jaxcrop.features.backbones import FrozenBackbone, View
from jaxcrop.features.maps import ChipSet, feature_maps
from jaxcrop.features.store import FeatureStore
from jaxcrop.probes.classifiers import LinearClassifiers
from jaxcrop.probes.pixels import pixel_features
from jaxcrop.probes.scoring import confusions
from jaxcrop.training.metrics import confusion_matrix


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


def test_classifying_hypercolumns_is_the_linear_head(model, chips):
    backbone = FrozenBackbone.of(model[1], model[0], INPUT)
    image, label = images_and_labels(chips, INPUT)
    logits = np.asarray(nnx.jit(model[1])(normalise(image, INPUT)))
    heads = model[1].decoder.classifiers
    kernel = jnp.concatenate([head.kernel[...] for head in heads])
    head = LinearClassifiers(kernel[None], heads[0].bias[...][None])

    found = pixel_features(backbone, chips, pixels=40, dtype="float32")
    scores = found.features @ np.asarray(kernel) + np.asarray(head.bias[0])
    want = logits.reshape(len(label), -1, NUM_CLASSES)[np.arange(3)[:, None], found.place]
    assert np.abs(scores - want).max() < 1e-4 * np.abs(want).max()
    np.testing.assert_array_equal(
        found.label, label.reshape(3, -1)[np.arange(3)[:, None], found.place]
    )

    counted = confusions(backbone, chips, head)
    want = np.asarray(confusion_matrix(label, logits.argmax(-1), NUM_CLASSES))
    assert counted.shape == (1, *want.shape)
    assert np.abs(counted[0] - want).sum() <= 4  # pixels whose scores are tied but for rounding
    assert want.sum() == (label > 0).sum() > 0


def test_without_a_backbone_the_features_of_a_pixel_are_its_bands(raw, chips):
    image, _ = images_and_labels(chips, raw.band_input)
    found = pixel_features(raw, chips, pixels=50, dtype="float32")
    pixels = image.reshape(3, -1, len(SENTINEL2_BANDS))[np.arange(3)[:, None], found.place]
    np.testing.assert_allclose(found.features, pixels / np.float32(10_000), rtol=1e-6)


def test_a_view_is_that_of_the_maps(raw, chips):
    view = View(2, seed=5)
    maps = feature_maps(raw, chips, view, dtype="float32")
    pixels = pixel_features(raw, chips, view, pixels=30, dtype="float32")
    at = np.arange(3)[:, None], pixels.place
    np.testing.assert_array_equal(pixels.label, maps.label.reshape(3, -1)[at])
    np.testing.assert_allclose(pixels.features, maps.maps[0].reshape(3, -1, 13)[at], atol=1e-5)


def test_a_chip_has_the_same_view_beside_any_others(raw, chips):
    alone = ChipSet(chips.records, chips.index, chips.ids[2:])
    for view in (View(), View(1)):
        among, by_itself = (pixel_features(raw, c, view, pixels=20) for c in (chips, alone))
        np.testing.assert_array_equal(among.place[2:], by_itself.place)
        np.testing.assert_array_equal(among.features[2:], by_itself.features)


def test_what_is_kept_depends_on_all_that_decides_it(raw, chips, tmp_path):
    store = FeatureStore(tmp_path)
    fewer = ChipSet(chips.records, chips.index, chips.ids[:2])
    bands = FrozenBackbone.raw(SENTINEL2_BANDS[::-1])
    cases = [
        (raw, chips, View(), {}),
        (raw, fewer, View(), {}),
        (raw, chips, View(1), {}),
        (raw, chips, View(1, seed=1), {}),
        (raw, chips, View(), {"dtype": "float32"}),
        (raw, chips, View(), {"pixels": 7}),
        (bands, chips, View(), {}),
    ]
    told = []

    def features(of, these, view, **options):
        arguments = {"pixels": 5, "store": store, **options}
        return pixel_features(of, these, view, **arguments, progress=lambda *at: told.append(at))

    for number, (of, these, view, options) in enumerate(cases):
        for _ in range(2):
            assert isinstance(features(of, these, view, **options).features, np.memmap)
        assert len(told) == number + 1  # the second time it was there
    features(raw, chips, View(0, seed=9))  # the view of number 0 has no seed
    assert len(told) == len(cases)
    assert len(list(tmp_path.glob("*/about.json"))) == len(cases)


def test_features_that_do_not_fit_are_refused(raw, chips, tmp_path):
    bright = BandInput.scaled(raw.band_input.bands, 1e-3)
    glaring = FrozenBackbone(
        raw.state, raw.definition, "raw bands", bright, raw.channels, raw.multiple
    )
    with pytest.raises(InputError, match="too large for float16"):
        pixel_features(glaring, chips, pixels=5, store=FeatureStore(tmp_path))
    assert not list(tmp_path.glob("[!.]*"))  # but for a hidden lock
    found = pixel_features(glaring, chips, pixels=5, dtype="float32")
    assert found.features.max() > 1e5


def test_other_weights_and_views_are_computed_by_the_same_program(raw, chips):
    from jaxcrop.probes import pixels

    of_raw = pixel_features(raw, chips, pixels=5)
    one, other = (FrozenBackbone.of(segmenter("resnet18", n), "resnet18", INPUT) for n in (0, 1))
    of_one = pixel_features(one, chips, pixels=5)
    program = shared(pixels._columns, "dtype")
    before = program._cache_size()
    of_other = pixel_features(other, chips, pixels=5)
    pixel_features(other, chips, View(1), pixels=5)
    assert program._cache_size() == before
    assert (of_one.features != of_other.features).any()
    for found in (of_one, of_other):
        np.testing.assert_array_equal(found.place, of_raw.place)
        np.testing.assert_array_equal(found.weight, of_raw.weight)
