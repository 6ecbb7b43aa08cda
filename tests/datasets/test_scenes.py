"""Products in ESA's layout and as band files. Oracles: their bands, scipy, and real scenes."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from jaxcrop_datasets.rasters import Grid
from jaxcrop_datasets.scenes import find_scenes
from jaxcrop_datasets.tiling import Tile, tiles_over
from made_up_products import (
    CRS,
    METRES,
    NORTH,
    WEST,
    bands_of,
    draw,
    write_band,
    write_plain,
    write_safe,
)
from rasterio.transform import from_origin
from rasterio.warp import transform
from scipy.ndimage import map_coordinates

from jaxcrop.errors import InputError


def interpolated(pixels: np.ndarray, grid: Grid, metres: float, at=(WEST, NORTH), crs=CRS):
    """Bilinear interpolation between pixel centres by scipy; NaN beyond the outermost centres."""
    columns, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = grid.transform @ (columns, rows)
    x, y = (np.array(v) for v in transform(grid.crs, crs, x.ravel(), y.ravel()))
    where = np.stack([(at[1] - y) / metres - 0.5, (x - at[0]) / metres - 0.5])
    values = map_coordinates(pixels.astype(float), where, order=1, cval=np.nan)
    return values.reshape(grid.height, grid.width)


@pytest.mark.parametrize(
    ("level", "offsets", "stated"),
    [("1C", (-1000,) * 13, -1000), ("2A", (-1000,) * 13, -1000), ("1C", (), 0), ("2A", (), 0)],
)
def test_a_safe_product_says_what_it_is(tmp_path, level, offsets, stated):
    write_safe(tmp_path / "a" / "b", draw(level), level=level, offsets=offsets)
    (scene,) = find_scenes(tmp_path)
    assert scene.name == f"S2A_MSIL{level}_20230719T084601_N0510_R107_T34HCH_20230719T104801"
    assert (scene.day, scene.product, scene.cloud) == ("2023-07-19", f"L{level}", 12.5)
    assert scene.radio_add_offset == stated
    assert scene.bands == bands_of(level)
    grid = Grid(rasterio.crs.CRS.from_string(CRS), from_origin(WEST, NORTH, 10, 10), 120, 120)
    assert scene.grid == grid


@pytest.mark.parametrize("level", ["1C", "2A"])
def test_every_band_is_brought_to_10_m(tmp_path, level):
    bands = draw(level)
    write_safe(tmp_path, bands, level=level)
    (scene,) = find_scenes(tmp_path)
    image = scene.read(scene.grid)
    assert image.dtype == np.uint16
    for index, band in enumerate(scene.bands):
        expected = interpolated(bands[band], scene.grid, METRES[band])
        if METRES[band] == 10:
            np.testing.assert_array_equal(image[..., index], bands[band])
        inside = np.isfinite(expected)
        assert inside.mean() > 0.85
        # One is GDAL's rounding.
        np.testing.assert_allclose(image[..., index][inside], expected[inside], atol=1)


def test_native_files_are_preferred_in_l2a(tmp_path):
    bands = draw("2A")
    safe = write_safe(tmp_path, bands, level="2A")
    (images,) = safe.glob("GRANULE/*/IMG_DATA")
    for band, metres in (("B02", 20), ("B02", 60), ("B8A", 60), ("B01", 20)):
        name = next(images.rglob(f"*_{band}_*")).name.replace(f"_{METRES[band]}m", f"_{metres}m")
        write_band(images / f"R{metres}m" / name, np.ones((9, 9), np.uint16), metres)
    write_band(images / "R10m" / "T34HCH_20230719T084601_TCI_10m.jp2", bands["B02"] // 20, 10)
    (scene,) = find_scenes(safe)
    for band, file in scene.files.items():
        assert file.name.endswith(f"_{band}_{METRES[band]}m.jp2")


@pytest.mark.parametrize(
    "template", ["{band}.tif", "{short}.TIF", "T34HCH_20230719T084601_{band}_{metres}m.tiff"]
)
def test_band_files_are_known_by_their_names(tmp_path, template):
    bands = draw("1C", side=60)
    write_plain(tmp_path / "T34HCH_20230719", bands, template)
    (tmp_path / "T34HCH_20230719" / "cloud_mask.tif").write_bytes(b"")
    (scene,) = find_scenes(tmp_path)
    assert (scene.name, scene.day, scene.product) == ("T34HCH_20230719", "2023-07-19", "L1C")
    assert (scene.radio_add_offset, scene.cloud) == (None, None)
    np.testing.assert_array_equal(scene.read(scene.grid, ["B04"])[..., 0], bands["B04"])


def test_offset_of_earth_engines_properties(tmp_path):
    write_plain(tmp_path / "s", draw("2A", side=60))
    for properties, expected in [
        ({}, None),
        ({"BOA_ADD_OFFSET_B1": -1000, "BOA_ADD_OFFSET_B2": -1000}, -1000),
        ({"PROCESSING_BASELINE": "02.14"}, 0),
        ({"PROCESSING_BASELINE": "05.10"}, None),
        ({"BOA_ADD_OFFSET_B1": -1000, "system:id": "COPERNICUS/S2_SR_HARMONIZED/20230719T"}, 0),
    ]:
        product = {"PRODUCT_ID": "S2B_MSIL2A_20230719T054639", **properties}
        (tmp_path / "s" / "metadata.json").write_text(json.dumps(product))
        (scene,) = find_scenes(tmp_path)
        assert scene.radio_add_offset == expected
        assert scene.day == "2023-07-19"


def test_a_pixel_that_needs_a_missing_one_is_missing_in_all_bands(tmp_path):
    """Oracle: scipy's interpolation, of NaN where the product has 0."""
    bands = draw("1C")
    bands["B02"][30:40, 20:30] = 0
    bands["B11"][50, 7] = 0
    bands["B10"][15:, :] = 0
    write_safe(tmp_path, bands)
    (scene,) = find_scenes(tmp_path)
    grid = Grid(scene.grid.crs, from_origin(WEST + 33, NORTH - 47, 10, 10), 100, 100)
    missing = np.zeros((100, 100), bool)
    for band in scene.bands:
        source = np.where(bands[band] == 0, 0.0, 1.0)
        missing |= interpolated(np.pad(source, 1, "edge"), grid, METRES[band],
                                (WEST - METRES[band], NORTH + METRES[band])) < 1 - 1e-9  # fmt: skip
    image = scene.read(grid)
    assert 0.1 < missing.mean() < 0.9
    np.testing.assert_array_equal(image == 0, np.repeat(missing[..., None], 13, axis=-1))


def test_beyond_the_product_all_is_missing(tmp_path):
    write_safe(tmp_path, draw("1C"))
    (scene,) = find_scenes(tmp_path)
    half = Grid(scene.grid.crs, from_origin(WEST - 600, NORTH, 10, 10), 120, 120)
    image = scene.read(half)
    assert not image[:, :60].any()
    assert image[:, 60:].all()
    assert not scene.read(Tile(-3894, -2037).grid).any()


def test_real_scene_on_the_papers_grid(shared_data):
    """Oracle: scipy, at the pixels' centres as PROJ has them; GDAL may be an eighth pixel off."""
    (scene,) = find_scenes(shared_data / "scenes")
    assert (scene.product, scene.day) == ("L2A", "2020-02-23")
    tile = next(
        tile
        for tile in tiles_over(scene.grid.bounds, scene.grid.crs)
        if scene.read(tile.grid, ["B02"]).all()
    )
    image = scene.read(tile.grid)
    for band in ("B02", "B05", "B01"):
        with rasterio.open(scene.files[band]) as file:
            at, metres = (file.transform.c, file.transform.f), file.transform.a
            pixels = file.read(1)
        expected = interpolated(pixels, tile.grid, metres, at, scene.grid.crs)
        found = image[..., scene.bands.index(band)].astype(float)
        steps = np.hypot(*np.gradient(expected))
        assert np.isfinite(expected).all()
        assert (np.abs(found - expected) <= 1 + 0.4 * steps).mean() > 0.98
        assert abs((found - expected).mean()) < 0.5


def test_real_earth_engine_folders(shared_data):
    found = {scene.product: scene for scene in find_scenes(shared_data / "ssl4eo_punjab")}
    assert {scene.day for scene in found.values()} == {"2020-06-04"}
    assert [found[level].cloud for level in ("L1C", "L2A")] == [0.8438, 4.184628]
    assert {scene.radio_add_offset for scene in found.values()} == {0}
    for scene in found.values():
        image = scene.read(scene.grid)
        # The bands of 60 m begin a little to the east: the pixels before are missing.
        assert (image == 0).all(axis=-1).mean() < 0.03
        assert (image > 0).all(axis=-1).mean() > 0.97


def spoiled(kind: str, safe: Path) -> str:
    """Spoil a product in one way, and say what the message has to name."""

    def image(band: str) -> Path:
        return next(safe.rglob(f"*_{band}.jp2"))

    def missing_band():
        image("B8A").unlink()
        return "lacks band B8A"

    def truncated():
        path = image("B05")
        os.truncate(path, path.stat().st_size // 2)
        return path.name

    def not_an_image():
        path = image("B02")
        path.write_bytes(b"GIF89a, they said")
        return path.name

    def no_projection():
        path = image("B02")
        write_band(path, np.ones((120, 120), np.uint16), 10, crs=None)
        return "no projection"

    def bytes_of_colour():
        path = image("B03")
        write_band(path, np.ones((120, 120), np.uint8), 10)
        return f"{path.name} has 1 bands of uint8"

    def no_metadata():
        (safe / "MTD_MSIL1C.xml").unlink()
        return "MTD_MSIL1C.xml is missing or damaged"

    def damaged_metadata():
        os.truncate(safe / "MTD_MSIL1C.xml", 300)
        return "MTD_MSIL1C.xml is missing or damaged"

    def two_offsets():
        path = safe / "MTD_MSIL1C.xml"
        path.write_text(path.read_text().replace("-1000", "-900", 1))
        return "states the offsets"

    def no_granule():
        next(safe.glob("GRANULE/*/IMG_DATA")).rename(safe / "elsewhere")
        return "0 folders GRANULE"

    return locals()[kind]()


SPOILS = [
    "missing_band", "truncated", "not_an_image", "no_projection", "bytes_of_colour", "no_metadata",
    "damaged_metadata", "two_offsets", "no_granule",
]  # fmt: skip


@pytest.mark.parametrize("kind", SPOILS)
def test_bad_products_are_named(tmp_path, kind):
    safe = write_safe(tmp_path, draw("1C"))
    named = spoiled(kind, safe)
    with pytest.raises(InputError) as error:
        [scene.read(scene.grid) for scene in find_scenes(tmp_path)]
    assert named in str(error.value)
    assert safe.name in str(error.value)


def test_folders_without_products_or_days_are_named(tmp_path):
    with pytest.raises(InputError, match="nowhere is missing"):
        find_scenes(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no Sentinel-2 product"):
        find_scenes(tmp_path)
    write_plain(tmp_path / "undated", draw("2A", side=60))
    with pytest.raises(InputError, match="undated does not say its day"):
        find_scenes(tmp_path)
    (tmp_path / "undated" / "metadata.json").write_text("[1]")
    with pytest.raises(InputError, match=r"metadata.json is no JSON object"):
        find_scenes(tmp_path)
