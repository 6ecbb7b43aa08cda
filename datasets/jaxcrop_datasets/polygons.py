"""Polygons in vector files: which layers a folder holds, and those of a layer that meet a box."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from jaxcrop.errors import InputError
from jaxcrop_datasets.rasters import Box

_GDAL = (".gpkg", ".shp", ".geojson")
_POLYGON, _MULTIPOLYGON = 3, 6


class Layer(NamedTuple):
    """A layer of polygons in a file whose attributes are one that was asked for, and others."""

    path: Path
    source: str  # what GDAL calls the file, which may lie in an archive
    name: str  # of the layer, or of the column that holds the geometries
    attribute: str
    crs: CRS
    box: Box  # in this projection
    indexed: bool  # GDAL finds what meets a box without passing through all of the file


def vector_files(folder: Path) -> list[Path]:
    """The vector files of a folder by name: GeoPackage, Shapefile, GeoParquet, GeoJSON, zipped."""
    suffixes = (*_GDAL, ".parquet", ".zip")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)


def layers(path: Path, attribute: str) -> list[Layer]:
    """The layers of a vector file that have this attribute.

    Raises InputError where none has, and for a file that cannot be read or has no projection.
    """
    import pyarrow  # noqa: PLC0415 - these two are slow to import
    import pyogrio  # noqa: PLC0415

    of_kind = _parquet_layers if path.suffix.lower() == ".parquet" else _gdal_layers
    try:
        found = list(of_kind(path))
    except (
        pyarrow.ArrowInvalid, pyogrio.errors.DataSourceError, BadZipFile, CRSError, KeyError
    ) as error:  # fmt: skip
        raise InputError(
            f"{path} cannot be read as polygons: it is damaged or another format, fetch it again"
        ) from error
    having = [layer for layer, names in found if attribute in names]
    if not having:
        others = sorted({name for _, names in found for name in names})
        raise InputError(
            f"{path} has no attribute {attribute} (it has {', '.join(others) or 'none'}): give "
            "polygons with the dataset's own codes"
        )
    if any(layer.crs is None for layer in having):
        raise InputError(f"{path} has no projection (CRS): give polygons with one")
    return [layer._replace(attribute=attribute) for layer in having]


def polygons(layer: Layer, box: Box) -> tuple[NDArray[np.object_], NDArray]:
    """The polygons of a layer that meet a box in its projection, in the file's order.

    Returns them as shapely's, and the values of the attribute. Only these are read.
    """
    import pyogrio  # noqa: PLC0415
    import shapely  # noqa: PLC0415

    if layer.source.lower().endswith(".parquet"):
        geometries, values = _from_parquet(layer, box)
    else:
        where = {"bbox": box} if layer.indexed else {"fids": _meeting(_gdal_boxes(layer), box)}
        if not layer.indexed and not where["fids"].size:
            return np.empty(0, object), np.empty(0)
        _, fids, geometries, (values,) = pyogrio.raw.read(
            layer.source,
            layer=layer.name,
            columns=[layer.attribute],
            force_2d=True,
            return_fids=True,
            **where,
        )
        order = np.argsort(fids)  # an index gives its own
        geometries, values = geometries[order], values[order]
    shapes = shapely.from_wkb(geometries)
    solid = np.isin(shapely.get_type_id(shapes), (_POLYGON, _MULTIPOLYGON))
    solid &= ~shapely.is_empty(shapes)
    return shapes[solid], values[solid]


def _gdal_layers(path: Path) -> Iterator[tuple[Layer, list[str]]]:
    """The layers of a file that GDAL reads, and the names of their attributes."""
    import pyogrio  # noqa: PLC0415

    for source in _sources(path):
        for name, geometry in pyogrio.list_layers(source):
            if geometry is None:  # a table
                continue
            info = pyogrio.read_info(source, layer=name, force_total_bounds=True)
            crs = CRS.from_user_input(info["crs"]) if info["crs"] else None
            indexed = (
                info["driver"] != "ESRI Shapefile" or info["capabilities"]["fast_spatial_filter"]
            )
            box = tuple(info["total_bounds"])
            yield Layer(path, source, name, "", crs, box, indexed), list(info["fields"])


def _sources(path: Path) -> list[str]:
    """What GDAL calls the vector files in a file: itself, or those in an archive."""
    if path.suffix.lower() != ".zip":
        return [str(path)]
    with ZipFile(path) as archive:
        members = sorted(name for name in archive.namelist() if name.lower().endswith(_GDAL))
    return [f"/vsizip/{path}/{member}" for member in members]


def _parquet_layers(path: Path) -> Iterator[tuple[Layer, list[str]]]:
    from pyarrow.parquet import read_schema  # noqa: PLC0415

    schema = read_schema(path)
    geo = json.loads((schema.metadata or {})[b"geo"])
    name = geo["primary_column"]
    column = geo["columns"][name]
    if column["encoding"] != "WKB":
        raise InputError(f"{path} holds geometries as {column['encoding']}: write them as WKB")
    projection = column.get("crs", "OGC:CRS84")  # what GeoParquet says of files that do not say
    text = json.dumps(projection) if isinstance(projection, dict) else projection
    boxes = _parquet_boxes(path, name)
    box = (*np.nanmin(boxes[:, :2], axis=0), *np.nanmax(boxes[:, 2:], axis=0))
    crs = CRS.from_user_input(text) if text else None
    yield Layer(path, str(path), name, "", crs, box, False), schema.names


def _meeting(boxes: NDArray[np.float64], box: Box) -> NDArray[np.intp]:
    """Which of the boxes (n, 4) meet this one."""
    west, south, east, north = box
    left, bottom, right, top = boxes.T
    return np.flatnonzero((left <= east) & (right >= west) & (bottom <= north) & (top >= south))


@cache
def _gdal_boxes(layer: Layer) -> NDArray[np.float64]:
    """The bounding box (n, 4) of each shape of a Shapefile, whose numbers are 0, 1 and so on.

    Kept, because a Shapefile without index is read through for each chip otherwise.
    """
    import pyogrio  # noqa: PLC0415

    return pyogrio.read_bounds(layer.source, layer=layer.name)[1].T


@cache
def _parquet_boxes(path: Path, column: str) -> NDArray[np.float64]:
    """The bounding box (n, 4) of each geometry of a GeoParquet file."""
    import shapely  # noqa: PLC0415
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415

    with ParquetFile(path) as file:
        return np.concatenate(
            [np.empty((0, 4))]
            + [
                shapely.bounds(shapely.from_wkb(batch.column(0).to_numpy(zero_copy_only=False)))
                for batch in file.iter_batches(columns=[column])
            ]
        )


def _from_parquet(layer: Layer, box: Box) -> tuple[NDArray[np.object_], NDArray]:
    """Geometries as WKB and values of those that meet the box: only their row groups are read."""
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415

    rows = _meeting(_parquet_boxes(layer.path, layer.name), box)
    with ParquetFile(layer.path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        group = np.searchsorted(starts, rows, side="right") - 1
        geometries, values = [], []
        for number in np.unique(group):
            table = file.read_row_group(number, columns=[layer.name, layer.attribute])
            table = table.take(rows[group == number] - starts[number])
            geometries += table[layer.name].to_pylist()
            values += table[layer.attribute].to_pylist()
    return np.array(geometries, object), np.array(values, object)
