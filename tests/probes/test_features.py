"""Features of frozen backbones beside what the segmenters of the same weights see."""

from zlib import crc32

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from made_up import fill

from jaxcrop.crops import NUM_CLASSES
from jaxcrop.data.augment import augment, normalise
from jaxcrop.data.bands import SENTINEL2_BANDS, BandInput
from jaxcrop.data.index import index_of
from jaxcrop.errors import InputError
from jaxcrop.models.segmenter import abstract_segmenter
from jaxcrop.probes.backbones import FrozenBackbone, View
from jaxcrop.probes.classifiers import LinearClassifiers
from jaxcrop.probes.features import ChipSet, feature_maps, pixel_features
from jaxcrop.probes.scoring import confusions
from jaxcrop.probes.store import FeatureStore
from jaxcrop.training.metrics import confusion_matrix

INPUT = BandInput(("B04", "B03", "B08"), (0.0, 1.0, 2.0), (3000.0, 4000.0, 5000.0), clip=False)


def segmenter(architecture: str, seed: int = 0):
    model = abstract_segmenter(architecture, "linear", len(INPUT.bands), NUM_CLASSES)
    fill(model, seed)
    model.eval()
    return model


@pytest.fixture(scope="module", params=["resnet18", "vit-s14"])
def model(request):
    """A segmenter; the ViT pads 256 pixels to 266."""
    return request.param, segmenter(request.param)


@pytest.fixture(scope="module")
def raw():
    """The backbone that costs nothing."""
    return FrozenBackbone.raw()


@pytest.fixture(scope="module")
def chips(synthetic_records):
    index = index_of(synthetic_records)
    return ChipSet(synthetic_records, index, tuple(map(str, index.chip_id[:3])))


def images_and_labels(chips, band_input):
    found = list(chips.chips(band_input))
    return np.stack([c.image for c in found]), np.stack([c.label for c in found])


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


def test_maps_are_those_of_the_backbone_in_eval_mode(model, chips):
    backbone = FrozenBackbone.of(model[1], model[0], INPUT)
    image, label = images_and_labels(chips, INPUT)
    size = -(-256 // backbone.multiple) * backbone.multiple
    padded = np.pad(image, ((0, 0), (0, size - 256), (0, size - 256), (0, 0)), mode="edge")
    want = nnx.jit(model[1].backbone)(normalise(padded, INPUT))
    found = feature_maps(backbone, chips, dtype="float32", batch_size=1)
    assert len(found.maps) == len(want)
    for ours, theirs in zip(found.maps, want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(abs(theirs).max()))
    np.testing.assert_array_equal(found.label, label)
    half = feature_maps(backbone, chips, dtype="float16").maps
    np.testing.assert_allclose(half[0], found.maps[0], rtol=1e-3, atol=1e-3)


def test_without_a_backbone_the_features_of_a_pixel_are_its_bands(raw, chips):
    image, _ = images_and_labels(chips, raw.band_input)
    found = pixel_features(raw, chips, pixels=50, dtype="float32")
    pixels = image.reshape(3, -1, len(SENTINEL2_BANDS))[np.arange(3)[:, None], found.place]
    np.testing.assert_allclose(found.features, pixels / np.float32(10_000), rtol=1e-6)


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
    pixels = pixel_features(raw, chips, view, pixels=30, dtype="float32")
    at = np.arange(3)[:, None], pixels.place
    np.testing.assert_array_equal(pixels.label, found.label.reshape(3, -1)[at])
    np.testing.assert_allclose(pixels.features, found.maps[0].reshape(3, -1, 13)[at], atol=1e-5)


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


def test_the_digest_is_of_weights_statistics_bands_and_scale():
    def digest(seed=0, architecture="resnet18", band_input=INPUT):
        return FrozenBackbone.of(segmenter(architecture, seed), "resnet18", band_input).digest

    model = segmenter("resnet18")
    statistics = model.backbone.bn1.mean
    statistics.set_value(statistics[...] + 1e-3)
    found = [
        digest(),
        digest(seed=1),
        digest(band_input=BandInput(INPUT.bands, INPUT.offset, (1.0,) * 3, clip=False)),
        digest(band_input=BandInput(INPUT.bands[::-1], INPUT.offset, INPUT.divisor, clip=False)),
        FrozenBackbone.of(model, "resnet18", INPUT).digest,
    ]
    assert len(set(found)) == len(found)
    assert digest() == found[0]


def test_features_that_do_not_fit_are_refused(raw, chips, tmp_path):
    bright = BandInput(raw.band_input.bands, (0.0,) * 13, (1e-3,) * 13, clip=False)
    glaring = FrozenBackbone(
        raw.state, raw.definition, "raw bands", bright, raw.channels, raw.multiple
    )
    with pytest.raises(InputError, match="too large for float16"):
        pixel_features(glaring, chips, pixels=5, store=FeatureStore(tmp_path))
    assert not list(tmp_path.glob("[!.]*"))  # but for a hidden lock
    found = pixel_features(glaring, chips, pixels=5, dtype="float32")
    assert found.features.max() > 1e5


def test_another_set_of_weights_sees_the_same_pixels_by_the_same_program(raw, chips):
    from jaxcrop.probes import features

    of_raw = pixel_features(raw, chips, pixels=5)
    one, other = (FrozenBackbone.of(segmenter("resnet18", n), "resnet18", INPUT) for n in (0, 1))
    of_one = pixel_features(one, chips, pixels=5)
    before = features._columns._cache_size()
    of_other = pixel_features(other, chips, pixels=5)
    assert features._columns._cache_size() == before
    assert (of_one.features != of_other.features).any()
    for found in (of_one, of_other):
        np.testing.assert_array_equal(found.place, of_raw.place)
        np.testing.assert_array_equal(found.weight, of_raw.weight)
