import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform as project

from jaxcrop.errors import InputError
from jaxcrop.mapping.area import row_hectares

A, F = 6_378_137.0, 1 / 298.257223563
E2 = F * (2 - F)


def zone_area(latitude):
    """Area in m² between the equator and a latitude per radian of longitude, on WGS 84."""
    s, e = np.sin(np.radians(latitude)), np.sqrt(E2)
    return A**2 * (1 - E2) / 2 * (s / (1 - E2 * s**2) + np.log((1 + e * s) / (1 - e * s)) / (2 * e))


def test_degrees():
    edges = 60 - 0.01 * np.arange(51)
    expected = np.radians(0.02) * (zone_area(edges[:-1]) - zone_area(edges[1:])) / 10_000
    grid = Affine(0.02, 0, 30, 0, -0.01, 60)
    np.testing.assert_allclose(row_hectares(CRS.from_epsg(4326), grid, 50, 7), expected, rtol=1e-6)


@pytest.mark.parametrize("latitude", [0, 45, -60])
def test_web_mercator_pixels_shrink_with_latitude(latitude):
    (_,), (y,) = project("EPSG:4326", "EPSG:3857", [10], [latitude])
    (hectares,) = row_hectares(CRS.from_epsg(3857), Affine(10, 0, 0, 0, -10, y + 5), 1, 1)
    s = np.sin(np.radians(latitude))
    scale = np.cos(np.radians(latitude)) ** 2 * (1 - E2) / (1 - E2 * s**2) ** 2
    assert hectares == pytest.approx(0.01 * scale, rel=1e-5)


def test_utm_on_its_central_meridian():
    grid = Affine(10, 0, 500_000, 0, -10, 5_000_000)
    hectares = row_hectares(CRS.from_epsg(32633), grid, 3, 1)
    np.testing.assert_allclose(hectares, 0.01 / 0.9996**2, rtol=1e-6)


def test_other_units_and_turned_grids():
    foot = 1200 / 3937
    c, s = 30 * np.cos(0.3), 30 * np.sin(0.3)
    grid = Affine(c, s, 1_000_000, s, -c, 200_000)
    (hectares,) = row_hectares(CRS.from_epsg(2263), grid, 1, 1)  # New York, US survey feet
    assert hectares == pytest.approx((30 * foot) ** 2 / 10_000, rel=1e-3)


@pytest.mark.parametrize(
    ("crs", "grid"),
    [
        (4326, Affine(1, 0, 0, 0, -1, 95)),  # latitude 95
        (32633, Affine(10, 0, 4e9, 0, -10, 4e9)),
    ],
)
def test_a_grid_beyond_the_earth_is_refused(crs, grid):
    with pytest.raises(InputError, match=f"leaves the Earth in EPSG:{crs}: correct"):
        row_hectares(CRS.from_epsg(crs), grid, 10, 1)
