"""Label maps over a chip: rasters of raw codes, or polygons of fields."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import rasterize
from rasterio.warp import transform_bounds, transform_geom

from jaxcrop.crops import IGNORE
from jaxcrop.errors import InputError
from jaxcrop_datasets.codes import Codes
from jaxcrop_datasets.rasters import Box, Grid, geotiffs, grid_of, open_raster, warp_codes

_VECTORS = (".gpkg", ".shp", ".parquet", ".geojson", ".zip")


def open_labels(folder: Path, codes: Codes, field: str | None) -> "LabelMaps | LabelFields":
    """The label maps of a folder: rasters, or polygons whose attribute `field` holds the code."""
    if field is not None and folder.is_dir() and _vector_files(folder):
        return LabelFields(folder, codes, field)
    return LabelMaps(folder, codes)


class LabelMaps:
    """The label rasters of a folder, found by where they lie.

    Raises InputError where the folder is missing or empty, or a map is no single band of whole
    numbers with a projection.
    """

    def __init__(self, folder: Path, codes: Codes):
        self._folder, self._codes = folder, codes
        self._maps: list[tuple[Path, Grid]] = []
        for path in geotiffs(folder):
            with open_raster(path) as file:
                if file.count != 1 or not np.issubdtype(file.dtypes[0], np.integer):
                    raise InputError(
                        f"{path} has {file.count} bands of {file.dtypes[0]}: a label map has one "
                        "band of whole numbers, the raw class codes"
                    )
                self._maps.append((path, grid_of(file, path)))
        projections = {grid.crs.to_wkt(): grid.crs for _, grid in self._maps}
        self._projections = list(projections.values())
        number = {wkt: index for index, wkt in enumerate(projections)}
        self._projection = np.array([number[grid.crs.to_wkt()] for _, grid in self._maps])
        self._boxes = np.array([grid.bounds for _, grid in self._maps])

    def over(self, chip: Grid, source: Path) -> NDArray[np.unsignedinteger]:
        """Raw codes (height, width) on the grid of the chip in the file `source`.

        Where label maps overlap, the first by name whose code is not ignored wins. Raises
        InputError where no map covers any of the chip, or a code is unknown.
        """
        code = np.full((chip.height, chip.width), self._codes.outside, self._codes.dtype)
        unlabelled = np.ones(code.shape, bool)
        for path, grid, box in self._near(chip):
            raw = warp_codes(
                path, grid, box, chip, outside=self._codes.outside, dtype=self._codes.dtype
            )
            uncovered = code == self._codes.outside
            labelled = self._codes.harmonise(raw, path) != IGNORE
            np.copyto(code, raw, where=uncovered | (unlabelled & labelled))
            unlabelled &= ~labelled
        if (code == self._codes.outside).all():
            raise _uncovered(source, self._folder)
        return code

    def _near(self, chip: Grid) -> Iterator[tuple[Path, Grid, Box]]:
        """The maps that the chip's bounding box meets, and this box in their projection."""
        boxes = np.array([_bounds_in(crs, chip) for crs in self._projections])[self._projection]
        west, south, east, north = boxes.T
        left, bottom, right, top = self._boxes.T
        meets = (left < east) & (right > west) & (bottom < north) & (top > south)
        for index in np.flatnonzero(meets):
            yield *self._maps[index], tuple(boxes[index])


class LabelFields:
    """Polygons of fields in the vector files of a folder, whose attribute `field` is the raw code.

    Of a file only the polygons that meet a chip are read. Raises InputError for a file that
    cannot be read, or lacks the attribute or a projection.
    """

    def __init__(self, folder: Path, codes: Codes, field: str):
        import pyogrio  # noqa: PLC0415 - slow to import

        self._folder, self._codes, self._field = folder, codes, field
        self._files: list[tuple[Path, str, CRS, Box]] = []
        for path in _vector_files(folder):
            try:
                info = pyogrio.read_info(_source(path), force_total_bounds=True)
                crs = CRS.from_user_input(info["crs"]) if info["crs"] else None
            except (pyogrio.errors.DataSourceError, CRSError) as error:
                raise InputError(
                    f"{path} cannot be read as polygons: it is damaged or another format, fetch "
                    "it again"
                ) from error
            if crs is None:
                raise InputError(f"{path} has no projection (CRS): give polygons with one")
            if field not in info["fields"]:
                raise InputError(
                    f"{path} has no attribute {field} (it has {', '.join(info['fields'])}): give "
                    "polygons with the dataset's own codes"
                )
            self._files.append((path, _source(path), crs, tuple(info["total_bounds"])))

    def over(self, chip: Grid, source: Path) -> NDArray[np.unsignedinteger]:
        """Raw codes (height, width) of the field that each pixel's centre of the chip lies in.

        Of fields that overlap the last in its file wins, of files the first by name. Raises
        InputError where no field lies in the chip of the file `source`, or a code is unknown.
        """
        code = np.full((chip.height, chip.width), self._codes.outside, self._codes.dtype)
        for path, name, crs, (left, bottom, right, top) in self._files:
            west, south, east, north = box = _bounds_in(crs, chip)
            if left < east and right > west and bottom < north and top > south:
                shapes = self._shapes(path, name, crs, box, chip.crs)
                if shapes:
                    raw = rasterize(
                        shapes,
                        code.shape,
                        fill=self._codes.outside,
                        transform=chip.transform,
                        dtype=self._codes.dtype,
                    )
                    self._codes.harmonise(raw, path)
                    np.copyto(code, raw, where=code == self._codes.outside)
        if (code == self._codes.outside).all():
            raise _uncovered(source, self._folder)
        return code

    def _shapes(self, path: Path, name: str, crs: CRS, box: Box, target: CRS) -> list:
        """(polygon in the projection `target`, code) of the fields of a file that meet `box`."""
        import pyogrio  # noqa: PLC0415
        import shapely  # noqa: PLC0415

        _, _, geometries, (values,) = pyogrio.raw.read(name, bbox=box, columns=[self._field])
        found = [
            (shapely.from_wkb(geometry), code)
            for geometry, value in zip(geometries, values, strict=True)
            if geometry is not None and (code := _code(value, path)) is not None
        ]
        found = [(shape, code) for shape, code in found if not shape.is_empty]
        return [
            (transform_geom(crs, target, shapely.geometry.mapping(shape)), code)
            for shape, code in found
        ]


def _vector_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _VECTORS)


def _source(path: Path) -> str:
    """What GDAL calls the file: a zipped shapefile is read within its archive."""
    return f"/vsizip/{path}" if path.suffix.lower() == ".zip" else str(path)


def _code(value: object, path: Path) -> int | None:
    """The raw code that an attribute holds as text or number, or None where it is empty."""
    text = "" if value is None else str(value).strip().removesuffix(".0")
    if text in ("", "nan", "None"):
        return None
    if not (text.isdecimal() and int(text) < np.iinfo(np.uint32).max):
        raise InputError(f"{path} holds the unknown code {text}: give the dataset's own codes")
    return int(text)


def _bounds_in(crs: CRS, chip: Grid) -> Box:
    return chip.bounds if crs == chip.crs else transform_bounds(chip.crs, crs, *chip.bounds)


def _uncovered(source: Path, folder: Path) -> InputError:
    return InputError(
        f"{source} lies under no label map: add the one that covers it to {folder}, or remove the "
        "chip"
    )
