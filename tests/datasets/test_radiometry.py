"""Offsets of real products with and without them, and the paper's rule for clouds."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from jaxcrop_datasets.radiometry import (
    Offset,
    cloudy_share,
    find_offset,
    nodata_share,
    remove_offset,
)

from jaxcrop.data.bands import SENTINEL2_BANDS

L2A = tuple(band for band in SENTINEL2_BANDS if band != "B10")
BEFORE, AFTER = "2021-07-01", "2023-07-01"
# Which of the real files carry the offset, from the darkest digital numbers of each band: the
# L1C's B10 is 1004, 54, 1011 at least; of the L2A's 13 bands the least is 1, 257, 969.
OFFSETS = {"282D_485L_3_3": (1000, 0), "38D_378R_2_3": (0, 0), "433D_629L_3_1": (1000, 1000)}


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.moveaxis(file.read(), 0, -1).astype(np.uint16)


@pytest.mark.parametrize("day", [BEFORE, AFTER])
@pytest.mark.parametrize("name", OFFSETS)
def test_cirrus_band_tells_the_offset_of_real_l1c_whatever_the_day(shared_data, name, day):
    image = read(shared_data / "terramesh" / "S2L1C" / f"{name}.tif")
    value, _ = OFFSETS[name]
    source = "year" if (day == AFTER) == (value == 1000) else "pixels"
    assert find_offset(image, SENTINEL2_BANDS, day, None) == Offset(value, source)
    assert find_offset(image, SENTINEL2_BANDS, day, -1000) == Offset(1000, "metadata")
    assert find_offset(image, SENTINEL2_BANDS, day, 0) == Offset(0, "metadata")


@pytest.mark.parametrize("name", OFFSETS)
def test_dark_pixels_of_real_l2a_disprove_an_offset(shared_data, name):
    image = read(shared_data / "terramesh" / "S2L2A" / f"{name}.tif")
    _, value = OFFSETS[name]
    assert find_offset(image, L2A, AFTER, None) == Offset(value, "year" if value else "pixels")


def test_offset_begins_on_the_day_of_baseline_04(shared_data):
    image = read(shared_data / "terramesh" / "S2L2A" / "433D_629L_3_1.tif")
    assert find_offset(image, L2A, "2022-01-24", None) == Offset(0, "year")
    assert find_offset(image, L2A, "2022-01-25", None) == Offset(1000, "year")


def test_clouds_in_the_cirrus_band_are_no_offset():
    """A chip full of ice cloud: B10 reflects 20 %, and says nothing."""
    image = np.full((8, 8, 13), 5000, np.uint16)
    image[..., SENTINEL2_BANDS.index("B10")] = 2000
    assert find_offset(image, SENTINEL2_BANDS, BEFORE, None) == Offset(0, "year")
    assert find_offset(image, SENTINEL2_BANDS, AFTER, None) == Offset(1000, "year")


def test_missing_pixels_say_nothing_about_the_offset():
    image = np.zeros((8, 8, 13), np.uint16)
    assert find_offset(image, SENTINEL2_BANDS, AFTER, None) == Offset(1000, "year")
    image[:2] = 1005
    assert find_offset(image, SENTINEL2_BANDS, BEFORE, None) == Offset(1000, "pixels")
    assert find_offset(image[..., :12], L2A, AFTER, None) == Offset(1000, "year")


def test_removing_the_offset_keeps_missing_pixels_apart_from_dark_ones():
    dn = np.array([0, 1, 999, 1000, 1001, 1002, 65535], np.uint16)
    np.testing.assert_array_equal(remove_offset(dn, 1000), [0, 1, 1, 1, 1, 2, 64535])
    assert remove_offset(dn, 1000).dtype == np.uint16
    np.testing.assert_array_equal(remove_offset(dn, 0), dn)


def test_shares_follow_the_papers_rule():
    """Oracle: max(B02, B03) == 0 is missing, min(B02, B03) > 1400 cloudy (datasets_spec 5)."""
    image = np.random.default_rng(0).choice([0, 1000, 1400, 1401, 9000], (64, 64, 13))
    pairs = [(int(p[1]), int(p[2])) for p in image.reshape(-1, 13)]
    cloudy = sum(min(pair) > 1400 for pair in pairs) / len(pairs)
    missing = sum(max(pair) == 0 for pair in pairs) / len(pairs)
    image = image.astype(np.uint16)
    assert cloudy_share(image, SENTINEL2_BANDS) == pytest.approx(cloudy)
    assert nodata_share(image, SENTINEL2_BANDS) == pytest.approx(missing)
    assert np.isnan(cloudy_share(image[..., :1], ["B02"]))
    assert np.isnan(nodata_share(image[..., :1], ["B03"]))
