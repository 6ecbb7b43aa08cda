"""Ground area of pixels."""

import numpy as np
from jaxtyping import Float
from rasterio._err import CPLE_BaseError  # what GDAL's refusals are, which has no public name
from rasterio.crs import CRS
from rasterio.transform import Affine, xy
from rasterio.warp import transform as project

from jaxcrop.errors import InputError

EQUAL_AREA = CRS.from_epsg(6933)
"""A cylindrical projection of the whole WGS 84 ellipsoid that keeps areas."""


def row_hectares(
    crs: CRS, transform: Affine, height: int, width: int
) -> Float[np.ndarray, " height"]:
    """Hectares on the ellipsoid of one pixel of each row, measured at the middle column.

    True to the ground in any CRS: a 10 m pixel of Web Mercator at 60 degrees north is 25 m², and
    degrees work too. Within a UTM tile the middle column stands for the others to about 0.1%.
    Raises InputError where the grid does not lie on the Earth.
    """
    row = np.arange(height + 1)
    try:
        left, right = (
            np.array(project(crs, EQUAL_AREA, *xy(transform, row, column, offset="ul")))
            for column in (np.full_like(row, width // 2), np.full_like(row, width // 2 + 1))
        )
    except CPLE_BaseError as error:
        raise _off_the_earth(crs, transform) from error
    # Half the cross product of a quadrilateral's diagonals is its area.
    down, up = right[:, 1:] - left[:, :-1], right[:, :-1] - left[:, 1:]
    area = np.abs(down[0] * up[1] - down[1] * up[0]) / 2 / 10_000
    if not np.isfinite(area).all():
        raise _off_the_earth(crs, transform)
    return area


def _off_the_earth(crs: CRS, transform: Affine) -> InputError:
    return InputError(
        f"the scene's geotransform {tuple(transform)[:6]} leaves the Earth in {crs}: correct the "
        "file's coordinate reference system or geotransform"
    )
