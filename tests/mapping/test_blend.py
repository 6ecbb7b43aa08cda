import numpy as np
import pytest

from jaxcrop.mapping.blend import axis_weights, blend, probabilities, taper
from jaxcrop.mapping.windows import Windows

GRIDS = [
    Windows(1, 1, 32, 8),
    Windows(31, 500, 64, 16),
    Windows(257, 255, 256, 64),
    Windows(256, 256, 256, 128),
    Windows(200, 310, 64, 32),
    Windows(200, 310, 64, 0),
]


def random_planes(windows, classes=3):
    rng = np.random.default_rng(0)
    return [rng.random((classes, windows.size, windows.size), np.float32) for _ in windows]


def assemble(windows, planes, classes=3):
    strips = [(top, strip.copy()) for top, strip in blend(windows, planes, classes)]
    assert [top for top, _ in strips] == list(windows.rows)
    return np.concatenate([strip for _, strip in strips], axis=1)


def brute_force(windows, planes, order):
    """Weighted sum over weights, both accumulated over the whole padded scene in float64."""
    size, ramp = windows.size, windows.overlap
    near_edge = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
    line = np.where(near_edge < ramp, 0.5 - 0.5 * np.cos(np.pi * near_edge / max(ramp, 1)), 1.0)
    weight = line[:, None] * line
    shape = (max(windows.height, size), max(windows.width, size))
    total, norm = np.zeros((3, *shape)), np.zeros(shape)
    corners = list(windows)
    for index in order:
        row, column = corners[index]
        place = (..., slice(row, row + size), slice(column, column + size))
        total[place] += weight * planes[index]
        norm[place] += weight
    return (total / norm)[:, : windows.height, : windows.width]


@pytest.mark.parametrize("windows", GRIDS, ids=str)
@pytest.mark.parametrize("step", [1, -1], ids=["in-order", "reversed"])
def test_equals_the_weighted_mean_of_whole_arrays(windows, step):
    planes = random_planes(windows)
    expected = brute_force(windows, planes, range(len(windows))[::step])
    np.testing.assert_allclose(assemble(windows, planes), expected, rtol=0, atol=5e-7)


def test_windows_without_data_count_as_zeros():
    windows = Windows(200, 310, 64, 32)
    planes = random_planes(windows)
    zeros = [plane * (index % 3 > 0) for index, plane in enumerate(planes)]
    nones = [plane if index % 3 else None for index, plane in enumerate(planes)]
    np.testing.assert_array_equal(assemble(windows, zeros), assemble(windows, nones))


def test_what_all_windows_agree_on_is_kept():
    windows = Windows(333, 333, 64, 20)
    result = assemble(windows, [np.full((3, 64, 64), 0.7, np.float32)] * len(windows))
    np.testing.assert_allclose(result, 0.7, rtol=3e-7)


@pytest.mark.parametrize("overlap", [0, 1, 7, 32])
def test_neighbouring_tapers_add_up_to_one(overlap):
    weight = taper(64, overlap)
    assert weight.min() > 0
    np.testing.assert_allclose(weight[64 - overlap :] + weight[:overlap], 1, rtol=1e-15)
    assert (weight[overlap : 64 - overlap] == 1).all()


def test_axis_weights_add_up_to_one_even_where_three_windows_meet():
    starts = (0, 32, 64, 70)
    total = np.zeros(134)
    for start, weight in axis_weights(starts, 64, 32).items():
        total[start : start + 64] += weight
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_probabilities_leave_class_0_out():
    logits = np.random.default_rng(1).normal(0, 50, (4, 5, 6))
    logits[0, 0] = 1e4, 1e4, 0, 0, 0, 0  # overflows a naive softmax
    share = np.exp(logits[..., 1:] - logits[..., 1:].max(-1, keepdims=True))
    expected = np.moveaxis(share / share.sum(-1, keepdims=True), -1, 0)
    np.testing.assert_allclose(probabilities(logits), expected, atol=2e-6)
    assert probabilities(logits.astype(np.float16)).dtype == np.float32
