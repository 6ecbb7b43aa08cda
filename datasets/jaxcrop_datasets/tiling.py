"""The grid of the paper's chips: squares of 2,560 m on Web Mercator (datasets_spec section 5)."""

import itertools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from jaxcrop.errors import InputError
from jaxcrop_datasets.rasters import Box, Grid

WEB_MERCATOR = CRS.from_epsg(3857)
PIXELS = 256
METRES = 10.0
_SIDE = PIXELS * METRES
_WORLD = math.pi * 6_378_137
"""Where Web Mercator ends, in metres from its origin."""


class Tile(NamedTuple):
    """A square of the grid: columns count eastwards, rows southwards from the equator."""

    col: int
    row: int

    @classmethod
    def of_name(cls, name: str) -> "Tile":
        """The tile of a chip called YEAR_COL_ROW. Raises InputError for another name."""
        if not re.fullmatch(r"\d{4}_-?\d+_-?\d+", name):
            raise InputError(f"{name} names no tile of the grid: a name is as 2023_-3894_-2037")
        _, col, row = name.split("_")
        return cls(int(col), int(row))

    def name(self, year: int) -> str:
        """What the paper calls a chip of this tile, labelled in this year."""
        return f"{year}_{self.col}_{self.row}"

    @property
    def grid(self) -> Grid:
        """Its 256 x 256 pixels of 10 m; on the ground they are smaller by the latitude's cosine."""
        corner = self.col * _SIDE, -self.row * _SIDE
        return Grid(WEB_MERCATOR, from_origin(*corner, METRES, METRES), PIXELS, PIXELS)

    @property
    def neighbours(self) -> tuple["Tile", ...]:
        """The eight tiles around it."""
        steps = itertools.product((-1, 0, 1), repeat=2)
        return tuple(Tile(self.col + x, self.row + y) for y, x in steps if x or y)


def tiles_over(box: Box, crs: CRS) -> Iterator[Tile]:
    """The tiles that a box in a projection meets, row by row from the north.

    A box that is no rectangle on Web Mercator counts as its bounding box there.
    """
    on_grid = box if crs == WEB_MERCATOR else transform_bounds(crs, WEB_MERCATOR, *box)
    west, south, east, north = (min(max(edge, -_WORLD), _WORLD) / _SIDE for edge in on_grid)
    if west < east and south < north:
        for row in range(math.floor(-north), math.ceil(-south)):
            for col in range(math.floor(west), math.ceil(east)):
                yield Tile(col, row)
