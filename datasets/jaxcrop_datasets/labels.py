"""Label maps over a chip: rasters of raw codes, or polygons of fields."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform, transform_bounds

from jaxcrop.crops import IGNORE
from jaxcrop.errors import InputError
from jaxcrop_datasets.codes import Codes
from jaxcrop_datasets.polygons import Layer, layers, polygons, vector_files
from jaxcrop_datasets.rasters import Box, Grid, geotiffs, grid_of, open_raster, warp_codes

_FIELD_NUMBERS = "_field_ids"
"""Ends the names of rasters that Radiant Earth puts beside its label maps: which field is where."""


def open_labels(folder: Path, codes: Codes, field: str | None) -> "LabelMaps | LabelFields":
    """The label maps of a folder: polygons whose attribute `field` holds the code, or rasters."""
    if field is not None and folder.is_dir() and vector_files(folder):
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
            if path.stem.endswith(_FIELD_NUMBERS):
                continue
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
        """Raw codes (height, width) on the grid of the chip in the file `source`, as `codes_in`.

        Raises InputError where no map covers any of the chip.
        """
        return _covered(self.codes_in(chip), self._codes, source, self._folder)

    def codes_in(self, grid: Grid) -> NDArray[np.unsignedinteger]:
        """Raw codes (height, width) on a grid; `outside`, as the code table has it, under no map.

        Where label maps overlap, the first by name whose code is not ignored wins. Raises
        InputError for an unknown code.
        """
        maps = (
            (
                path,
                warp_codes(
                    path, own, box, grid, outside=self._codes.outside, dtype=self._codes.dtype
                ),
            )
            for path, own, box in self._near(grid)
        )
        return _merged(maps, grid, self._codes)

    def extents(self) -> list[tuple[CRS, Box]]:
        """The projection of each map, and its bounds in it."""
        return [(grid.crs, grid.bounds) for _, grid in self._maps]

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
        self._folder, self._codes = folder, codes
        self._layers = [layer for path in vector_files(folder) for layer in layers(path, field)]

    def over(self, chip: Grid, source: Path) -> NDArray[np.unsignedinteger]:
        """Raw codes (height, width) on the grid of the chip in the file `source`, as `codes_in`.

        Raises InputError where no field lies in the chip.
        """
        return _covered(self.codes_in(chip), self._codes, source, self._folder)

    def codes_in(self, grid: Grid) -> NDArray[np.unsignedinteger]:
        """Raw codes (height, width) of the field that each pixel's centre lies in.

        `outside`, as the code table has it, where there is none. Of fields that overlap the last
        in its file wins, of files the first by name whose code is not ignored. Raises InputError
        for an unknown code.
        """
        return _merged(self._rasters(grid), grid, self._codes)

    def extents(self) -> list[tuple[CRS, Box]]:
        """The projection of each file, and its bounds in it."""
        return [(layer.crs, layer.box) for layer in self._layers]

    def _rasters(self, chip: Grid) -> Iterator[tuple[Path, NDArray[np.unsignedinteger]]]:
        """The files that have fields in the chip, and the codes (height, width) of these fields."""
        for layer in self._layers:
            box = _bounds_in(layer.crs, chip)
            west, south, east, north = box
            left, bottom, right, top = layer.box
            if left < east and right > west and bottom < north and top > south:
                shapes = self._shapes(layer, box, chip.crs)
                if shapes:
                    yield (
                        layer.path,
                        rasterize(
                            shapes,
                            (chip.height, chip.width),
                            fill=self._codes.outside,
                            transform=chip.transform,
                            dtype=self._codes.dtype,
                        ),
                    )

    def _shapes(self, layer: Layer, box: Box, target: CRS) -> list[tuple]:
        """(polygon in the projection `target`, code) of the fields of a layer that meet `box`."""
        import shapely  # noqa: PLC0415 - slow to import

        def to_target(points: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.column_stack(transform(layer.crs, target, *points.T))

        shapes, values = polygons(layer, box)
        known = {value: _code(value, layer.path, self._codes.outside) for value in set(values)}
        codes = [known.get(value) for value in values]
        declared = np.array([code is not None for code in codes], bool)
        shapes = shapes[declared]
        if layer.crs != target:
            shapes = shapely.transform(shapes, to_target)
        return list(zip(shapes, (code for code in codes if code is not None), strict=True))


def _merged(
    maps: Iterable[tuple[Path, NDArray[np.unsignedinteger]]], grid: Grid, codes: Codes
) -> NDArray[np.unsignedinteger]:
    """Raw codes of several maps on one grid: of each pixel the first that is not ignored."""
    code = np.full((grid.height, grid.width), codes.outside, codes.dtype)
    unlabelled = np.ones(code.shape, bool)
    for path, raw in maps:
        labelled = codes.harmonise(raw, path) != IGNORE
        np.copyto(code, raw, where=(code == codes.outside) | (unlabelled & labelled))
        unlabelled &= ~labelled
    return code


def _covered(
    code: NDArray[np.unsignedinteger], codes: Codes, source: Path, folder: Path
) -> NDArray[np.unsignedinteger]:
    """The same codes. Raises InputError where all of them are outside."""
    if (code == codes.outside).all():
        raise InputError(
            f"{source} lies under no label map: add the one that covers it to {folder}, or remove "
            "the chip"
        )
    return code


def _code(value: object, path: Path, outside: int) -> int | None:
    """The raw code that an attribute holds as text or number, or None where it is empty."""
    text = "" if value is None else str(value).strip().removesuffix(".0")
    if text in ("", "nan", "None"):
        return None
    if not (text.isdecimal() and int(text) < outside):
        raise InputError(f"{path} holds the unknown code {text}: give the dataset's own codes")
    return int(text)


def _bounds_in(crs: CRS, chip: Grid) -> Box:
    return chip.bounds if crs == chip.crs else transform_bounds(chip.crs, crs, *chip.bounds)
