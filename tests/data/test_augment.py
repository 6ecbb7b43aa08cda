"""Cropping against PyTorch's interpolation, drawing against torchvision's distribution."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcrop.data.augment import (
    Augmentation,
    Box,
    Flips,
    augment,
    crop_resize_flip,
    normalise,
    random_box,
)
from jaxcrop.data.bands import BandInput
from jaxcrop.data.sampling import Sampling


@pytest.fixture
def chip():
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 48, 3)).astype(np.float32), rng.integers(0, 6, (40, 48), np.uint8)


@pytest.mark.parametrize("box", [(0, 0, 40, 48), (3, 7, 31, 29), (10, 0, 24, 48), (5, 20, 1, 2)])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_crop_resize_flip_equals_torch(chip, box, flips):
    torch = pytest.importorskip("torch")
    image, label = chip
    top, left, height, width = box
    got, got_label = crop_resize_flip(
        jnp.asarray(image), jnp.asarray(label), Box(*box), Flips(*flips)
    )
    window = torch.from_numpy(image)[top : top + height, left : left + width]
    want = torch.nn.functional.interpolate(
        window.permute(2, 0, 1)[None], (40, 48), mode="bilinear", align_corners=True
    )
    axes = tuple(np.flatnonzero(flips))
    want = torch.flip(want[0].permute(1, 2, 0), axes)
    np.testing.assert_allclose(got, want, atol=2e-5)
    # A label pixel is the one under the centre of the interpolation.
    rows = np.rint(top + np.arange(40, dtype=np.float32) * np.float32((height - 1) / 39))
    columns = np.rint(left + np.arange(48, dtype=np.float32) * np.float32((width - 1) / 47))
    want_label = np.flip(label[rows.astype(int)][:, columns.astype(int)], axes)
    assert (want_label == np.asarray(got_label)).mean() > 0.95  # halves may round either way


def test_random_box_draws_as_torchvision_does():
    torch = pytest.importorskip("torch")
    from oracles import torchvision

    crop = torchvision().transforms.RandomResizedCrop
    image = torch.empty(3, 200, 200)
    torch.manual_seed(0)
    want = np.array([crop.get_params(image, (0.6, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)])
    drawn = jax.random.uniform(jax.random.key(0), (4000, 22))
    got = np.stack(jax.vmap(lambda drawn: jnp.stack(random_box(drawn, 200, 200)))(drawn), axis=0)
    assert got[:, :2].min() >= 0
    assert (got[:, :2] + got[:, 2:]).max() <= 200
    np.testing.assert_allclose(got.mean(0), want.mean(0), rtol=0.05)
    np.testing.assert_allclose(got.std(0), want.std(0), rtol=0.05)


def test_image_and_label_move_together():
    """A label painted into the image stays under its pixels through crop and flips.

    Beside it is painted how far each pixel is down and right, which says how chips are flipped.
    """
    rng = np.random.default_rng(1)
    label = np.kron(rng.integers(0, 6, (8, 8)), np.ones((32, 32))).astype(np.uint8)
    image = np.stack([label, *np.indices(label.shape)], axis=-1).astype(np.float32)
    keys = jax.random.split(jax.random.key(3), 16)
    image, moved = augment(keys, *(jnp.asarray(x[None].repeat(16, 0)) for x in (image, label)))
    painted, down, right = np.moveaxis(np.asarray(image), -1, 0)
    # On an interpolated edge between two classes the image is neither: one pixel in fifty.
    assert (np.rint(painted) == np.asarray(moved)).mean() > 0.96
    flips = set(zip(down[:, 0, 0] > down[:, -1, 0], right[:, 0, 0] > right[:, 0, -1], strict=True))
    assert flips == {(False, False), (False, True), (True, False), (True, True)}


def test_normalise_shifts_divides_and_clips():
    image = np.array([0, 1779, 3558, 9000], np.uint16).reshape(1, 2, 2, 1)
    clipped = normalise(jnp.asarray(image), BandInput.scaled(("B04",), 3558.0, clip=True))
    np.testing.assert_allclose(np.ravel(clipped), [0, 0.5, 1, 1])
    free = normalise(jnp.asarray(image), BandInput.scaled(("B04",)))
    np.testing.assert_allclose(np.ravel(free), [0, 0.1779, 0.3558, 0.9], rtol=1e-6)
    two = BandInput(("B04", "B08"), (1000.0, 500.0), (2000.0, 4000.0), clip=False)
    pixel = jnp.asarray([[[[0, 2500]]]], jnp.uint16)
    np.testing.assert_array_equal(np.ravel(normalise(pixel, two)), [-0.5, 0.5])
    clipped = normalise(pixel, dataclasses.replace(two, clip=True))
    np.testing.assert_array_equal(np.ravel(clipped), [0, 0.5])


@pytest.mark.parametrize("how", ["shuffled", "replacement"])
def test_views_drawn_at_once_are_those_of_each_step(how):
    """Also of batches that hold what is left of a pass."""
    views, key, sampling = Augmentation("views", 4), jax.random.key(3), Sampling(7, 3, 0, how)
    found = views.views_by_step(key, sampling, range(2, 9))
    assert set(found) == set(range(2, 9))
    assert set(np.concatenate(list(found.values()))) == {1, 2, 3, 4}
    for step in range(2, 9):
        want = views.drawn_views(key, step, len(sampling.batch(step)))
        np.testing.assert_array_equal(found[step], want)


def test_nothing_is_drawn_without_views():
    assert not Augmentation("none").views_by_step(jax.random.key(0), Sampling(7, 3, 0), range(5))
