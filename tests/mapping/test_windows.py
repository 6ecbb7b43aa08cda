import itertools

import numpy as np
import pytest

from jaxcrop.errors import InputError
from jaxcrop.mapping.windows import Windows

SIZES = [(1, 1), (31, 500), (257, 255), (256, 256), (1000, 700)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("size", "overlap"), [(256, 64), (64, 0), (64, 32), (96, 10)])
def test_windows_cover_the_scene_and_overlap(height, width, size, overlap):
    windows = Windows(height, width, size, overlap)
    seen = np.zeros((max(height, size), max(width, size)), int)
    for row, column in windows:
        patch = seen[row : row + size, column : column + size]
        assert patch.shape == (size, size)  # inside the scene, unless that is smaller
        patch += 1
    assert seen.min() == 1
    assert len(windows) == len(list(windows))
    for starts in (windows.rows, windows.columns):
        assert all(b - a <= size - overlap for a, b in itertools.pairwise(starts))
        assert list(starts) == sorted(set(starts))


def test_a_scene_that_fits_is_one_window():
    assert list(Windows(256, 256)) == [(0, 0)]
    assert list(Windows(200, 31)) == [(0, 0)]


def test_order_is_row_by_row():
    assert list(Windows(300, 500, 256, 64)) == [
        (0, 0), (0, 192), (0, 244), (44, 0), (44, 192), (44, 244),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [0, -32, 100])
def test_window_must_suit_the_strides(size):
    with pytest.raises(InputError, match=f"window {size} is not a multiple of 32"):
        Windows(10, 10, size, 0)


@pytest.mark.parametrize("overlap", [-1, 129, 256])
def test_overlap_must_be_at_most_half(overlap):
    with pytest.raises(InputError, match=f"overlap {overlap} .* take 0 to 128"):
        Windows(10, 10, 256, overlap)
