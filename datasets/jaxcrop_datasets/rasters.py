"""GeoTIFF files on grids: opening one, where its pixels lie, warping codes to another grid."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import DTypeLike, NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import array_bounds
from rasterio.warp import Resampling, reproject
from rasterio.windows import Window, from_bounds

from jaxcrop.errors import InputError

Box = tuple[float, float, float, float]
"""West, south, east and north edge, in units of a projection."""


class Grid(NamedTuple):
    """Where the pixels of a raster lie."""

    crs: CRS
    transform: Affine
    height: int
    width: int

    @property
    def bounds(self) -> Box:
        return array_bounds(self.height, self.width, self.transform)


@contextmanager
def open_raster(path: Path, driver: str = "GTiff") -> Iterator[rasterio.DatasetReader]:
    """Open a raster of this driver, and nothing else that GDAL knows, for reading."""
    try:
        with rasterio.open(path, driver=driver) as file:
            yield file
    except RasterioError as error:
        kind = "GeoTIFF" if driver == "GTiff" else driver
        raise InputError(
            f"{path} cannot be read as a {kind}: it is damaged or another format, fetch it again"
        ) from error


def grid_of(file: rasterio.DatasetReader, path: Path) -> Grid:
    """The grid of an open file. Raises InputError where it has none or is not north-up."""
    # For GDAL a JP2 without projection has one of nowhere.
    if file.crs is None or not (file.crs.is_projected or file.crs.is_geographic):
        raise InputError(f"{path} has no projection (CRS): give a georeferenced file")
    if file.transform.b or file.transform.d or file.transform.e >= 0:
        raise InputError(f"{path} is not north-up: warp it to a grid without rotation or flip")
    return Grid(file.crs, file.transform, file.height, file.width)


def crs_text(crs: CRS) -> str:
    """A projection as a short text: its EPSG code where it has one, else WKT."""
    code = crs.to_epsg()
    return crs.to_wkt() if code is None else f"EPSG:{code}"


def geotiffs(folder: Path) -> list[Path]:
    """The GeoTIFF files of a folder by name. Raises InputError for none, or no folder."""
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: it should hold GeoTIFF files")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".tif", ".tiff"))
    if not paths:
        raise InputError(f"{folder} holds no GeoTIFF file (*.tif): put them there")
    return paths


def warp_codes(
    path: Path, grid: Grid, box: Box, target: Grid, *, outside: int, dtype: DTypeLike
) -> NDArray:
    """Codes (height, width) of a label map on the `target` grid by nearest neighbour.

    `grid` is that of the file, `box` the target's bounds in its projection: only this is read.
    Pixels beyond the file are `outside`. A nodata value that the file declares is no more than
    another code: the code table decides.
    """
    codes = np.full((target.height, target.width), outside, dtype)
    corner = _corner(grid, target)
    with open_raster(path) as file:
        if corner is not None:
            # The published chips and ours: pixel upon pixel, nothing to warp.
            row, column = corner
            top, left = max(row, 0), max(column, 0)
            bottom = min(row + target.height, grid.height)
            right = min(column + target.width, grid.width)
            if top < bottom and left < right:
                window = Window(left, top, right - left, bottom - top)
                codes[top - row : bottom - row, left - column : right - column] = _exact(
                    file.read(1, window=window), dtype, path
                )
            return codes
        rows, columns = from_bounds(*box, grid.transform).toslices()
        margin = 2
        top, bottom = max(rows.start - margin, 0), min(rows.stop + margin, grid.height)
        left, right = max(columns.start - margin, 0), min(columns.stop + margin, grid.width)
        window = Window(left, top, right - left, bottom - top)
        reproject(
            _exact(file.read(1, window=window), dtype, path),
            codes,
            src_transform=file.window_transform(window),
            src_crs=grid.crs,
            src_nodata=outside,
            dst_transform=target.transform,
            dst_crs=target.crs,
            dst_nodata=outside,
            resampling=Resampling.nearest,
        )
    return codes


def _exact(values: NDArray, dtype: DTypeLike, path: Path) -> NDArray:
    """The values in another type. Raises InputError where one does not fit."""
    info = np.iinfo(dtype)
    strange = (values < info.min) | (values > info.max)
    if strange.any():
        raise InputError(
            f"{path} holds the unknown code {values[strange][0]}: give the dataset's own codes"
        )
    return values.astype(dtype, copy=False)


def _corner(grid: Grid, target: Grid) -> tuple[int, int] | None:
    """Row and column in `grid` of the target's first pixel, where each lies upon one of its own."""
    scales = [(g.transform.a, g.transform.e) for g in (grid, target)]
    if scales[0] != scales[1] or grid.crs != target.crs:
        return None
    column, row = ~grid.transform @ (target.transform.c, target.transform.f)
    whole = round(row), round(column)
    return whole if max(abs(row - whole[0]), abs(column - whole[1])) < 1e-6 else None
