import numpy as np
import pytest

from jaxcrop.reports.world import SIZE, equal_earth, land, land_path, on_map


def test_equal_earth_is_that_of_proj():
    pyproj = pytest.importorskip("pyproj")
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 500), rng.uniform(-90, 90, 500)
    theirs = pyproj.Proj("+proj=eqearth +R=1")(lon, lat)
    np.testing.assert_allclose(equal_earth(lon, lat), theirs, atol=1e-7)


def test_land_lies_on_the_map():
    rings = land()
    points = np.concatenate(rings)
    assert (points >= 0).all()
    assert (points <= SIZE).all()
    # No outline runs across the map, from one side of the Pacific to the other.
    assert max(abs(np.diff(ring[:, 0])).max() for ring in rings) < 50
    assert land_path().count("M") == len(rings) == land_path().count("Z")


@pytest.mark.parametrize(
    ("lon", "lat", "on_land"),
    [(-93.6, 42.0, True), (18.9, -33.2, True), (126.5, 46.5, True), (-30, 30, False)],
)
def test_places_that_everybody_knows(lon, lat, on_land):
    shapely = pytest.importorskip("shapely")
    point = shapely.Point(*on_map(np.array(lon), np.array(lat)))
    assert any(shapely.Polygon(ring).contains(point) for ring in land()) == on_land
