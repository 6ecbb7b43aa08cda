import math
import subprocess
import sys

import numpy as np
import pytest

from jaxcrop.errors import InputError
from jaxcrop.statistics.blocks import block_ids

RADIUS = 6371.0


def kilometres(lon, lat):
    """Great-circle distances between all places, by the haversine formula."""
    lon, lat = np.radians(lon), np.radians(lat)
    half = (
        np.sin((lat[:, None] - lat) / 2) ** 2
        + np.cos(lat[:, None]) * np.cos(lat) * np.sin((lon[:, None] - lon) / 2) ** 2
    )
    return 2 * RADIUS * np.arcsin(np.sqrt(half))


@pytest.mark.parametrize("centre", [(-95, 41), (25, 69), (-60, -10), (179.9, 2), (10, 0)])
@pytest.mark.parametrize("km", [5.0, 20.0])
def test_a_block_is_as_small_as_it_says_and_its_places_are_neighbours(centre, km):
    rng = np.random.default_rng(0)
    lat = centre[1] + rng.uniform(-0.5, 0.5, 1500)
    lon = centre[0] + rng.uniform(-0.5, 0.5, 1500) / math.cos(math.radians(centre[1]))
    blocks = block_ids(lon, lat, km)
    assert sorted(set(blocks)) == list(range(blocks.max() + 1))
    together = blocks[:, None] == blocks
    apart = kilometres(lon, lat)
    assert apart[together].max() < 1.02 * math.sqrt(2) * km
    # The square is 111.2 km wide: it cuts so many blocks, of which few have none of the 1,500.
    assert 0.6 * min(1500, (111.2 / km) ** 2) < len(set(blocks)) <= (111.2 / km + 2) ** 2
    near = (apart < km / 10) & ~np.eye(1500, dtype=bool)
    assert together[near].mean() > 0.8  # of neighbours a tenth of a block apart, few are cut


def test_places_at_edges_of_blocks_by_hand():
    degree = math.pi * RADIUS / 180
    km = degree / 4  # four rows a degree; columns a quarter of a degree at the equator
    lat = [0.01, 0.24, 0.26, -0.01, 0.01, 0.01, 0.01]
    lon = [0.01, 0.24, 0.01, 0.01, 0.26, -0.01, 0.12]
    a, b, north, south, east, west, c = block_ids(np.array(lon), np.array(lat), km)
    assert a == b == c
    assert len({a, north, south, east, west}) == 5


def test_columns_are_as_wide_as_rows_are_high_at_their_middle():
    degree, km = math.pi * RADIUS / 180, 20.0
    row = 300  # from 53.96 to 54.14 degrees
    lat = (row + np.array([0.1, 0.9])) * km / degree
    width = km / (degree * math.cos(math.radians((row + 0.5) * km / degree)))
    for edge in (-300, -7, 41, 400):
        left, right = edge * width - 1e-6, edge * width + 1e-6
        a, b, c, d = block_ids(np.array([left, right, left, right]), np.repeat(lat, 2), km)
        assert a == c
        assert b == d
        assert a != b


def test_refused():
    with pytest.raises(InputError, match="length above 0"):
        block_ids(np.zeros(2), np.zeros(2), 0)
    with pytest.raises(InputError, match="every chip"):
        block_ids(np.array([0, np.nan]), np.zeros(2))


def test_statistics_need_neither_jax_nor_pandas():
    code = (
        "import sys; sys.modules['jax'] = sys.modules['pandas'] = None;"
        "from jaxcrop.statistics import blocks; assert 'scipy' not in sys.modules;"
        "from jaxcrop.statistics import comparisons, learning_curves, policies, ranks"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
