"""The tile grid. Oracles: the published chips' names with their places, and PROJ."""

import numpy as np
import pytest
import rasterio.warp
import shapely
from jaxcrop_datasets.tiling import WEB_MERCATOR, Tile, tiles_over
from rasterio.crs import CRS

from jaxcrop.errors import InputError


# Names of published chips, where the dataset lies (longitudes, latitudes) and how many metres of
# ground a pixel has, from the spec of the study.
@pytest.mark.parametrize(
    ("tiles", "extent", "ground"),
    [
        ([(-3894, -2037), (-4248, -1795)], (-123.26, 26.20, -70.14, 49.00), (6.6, 9.0)),
        ([(-367, -2010), (540, -2947)], (-8.72, 40.13, 27.76, 63.24), (4.5, 7.7)),
        ([(5476, -2432), (5704, -2153)], (115.77, 39.21, 134.42, 53.43), (6.0, 7.8)),
        ([(-2742, 1476), (-2435, 442)], (-65.98, -38.60, -42.94, -2.69), (7.8, 10.0)),
    ],
    ids=["cdl", "eurocrops", "nccm", "sas"],
)
def test_published_names_are_where_the_published_chips_lie(tiles, extent, ground):
    for column, row in tiles:
        tile = Tile(column, row)
        assert Tile.of_name(tile.name(2019)) == tile
        grid = tile.grid
        assert (grid.height, grid.width) == (256, 256)
        west, south, east, north = grid.bounds
        assert (west, north) == (2560 * column, -2560 * row)
        assert (east, south) == (2560 * (column + 1), -2560 * (row + 1))
        (longitude,), (latitude,) = rasterio.warp.transform(
            grid.crs, "EPSG:4326", [(west + east) / 2], [(south + north) / 2]
        )
        assert extent[0] <= longitude <= extent[2]
        assert extent[1] <= latitude <= extent[3]
        assert ground[0] - 0.05 <= 10 * np.cos(np.radians(latitude)) <= ground[1] + 0.05


def test_names():
    assert Tile(-3894, -2037).name(2023) == "2023_-3894_-2037"
    for name in ("T00AAA_20230701T000000_combined", "2023_1", "2047", "2023_1_2.tif", "23_1_2"):
        with pytest.raises(InputError, match="names no tile"):
            Tile.of_name(name)


def test_neighbours_share_an_edge_or_a_corner():
    tile = shapely.box(*Tile(5, -7).grid.bounds)
    around = Tile(5, -7).neighbours
    assert len(set(around)) == 8
    for neighbour in around:
        other = shapely.box(*neighbour.grid.bounds)
        assert tile.touches(other)
        assert other.area == tile.area


@pytest.mark.parametrize("origin", [(0, 0), (-9_000_000, 5_000_000), (13_999_872, -4_000_001)])
def test_tiles_over_a_box_are_those_that_share_ground_with_it(origin):
    """Oracle: shapely, over all tiles around."""
    west, south = origin
    box = shapely.box(west, south, west + 13_000, south + 9_999)
    column, row = round(west / 2560), round(-south / 2560)
    expected = [
        Tile(c, r)
        for r in range(row - 9, row + 4)
        for c in range(column - 3, column + 9)
        if shapely.box(*Tile(c, r).grid.bounds).intersection(box).area
    ]
    assert list(tiles_over(box.bounds, WEB_MERCATOR)) == expected


def test_tiles_over_a_product_cover_it():
    box = (300_000, 1_890_220, 409_800, 2_000_020)
    crs = CRS.from_epsg(32648)
    tiles = set(tiles_over(box, crs))
    points = np.random.default_rng(0).uniform(box[:2], box[2:], (500, 2))
    x, y = np.array(rasterio.warp.transform(crs, WEB_MERCATOR, *points.T))
    assert set(zip(x // 2560, -y // 2560, strict=True)) <= tiles
    assert len(tiles) < 1.2 * (109_800 / 2560 / np.cos(np.radians(17.6))) ** 2
