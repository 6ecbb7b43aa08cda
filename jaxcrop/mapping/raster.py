"""Scenes read in windows, and maps written as cloud-optimised GeoTIFFs."""

import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
import rasterio.shutil
from jaxtyping import Bool, UInt16
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.windows import Window

from jaxcrop.data.bands import BandInput
from jaxcrop.errors import InputError
from jaxcrop.mapping.planes import check_offset, digital_numbers

BAND_NAME = re.compile(r"\s*B0?([1-9]|1[0-2]|8A)(?![0-9A-Z])", re.IGNORECASE)
"""How files spell a Sentinel-2 band: B04, B4, b04, "B4, central wavelength 665 nm"."""


def band_name(description: str) -> str:
    """Our spelling of a band's name ("B04", "B8A"); anything else comes back as it is."""
    match = BAND_NAME.match(description)
    return f"B{match[1].upper().zfill(2)}" if match else description


@dataclass(frozen=True)
class Scene:
    """An open raster and the choice of its bands; `open_scene` makes one."""

    path: Path
    source: rasterio.DatasetReader
    indices: tuple[int, ...]
    offset: int

    def read(
        self, row: int, column: int, height: int, width: int, shape: tuple[int, int] | None = None
    ) -> tuple[UInt16[np.ndarray, "h w band"], Bool[np.ndarray, "h w"]]:
        """DN less `offset`, and which pixels are valid, of a window inside the scene.

        A pixel is valid unless every chosen band holds the file's nodata value or 0. With `shape`,
        only every so many pixels are read (nearest), to give an image of that (height, width).
        """
        try:
            raw = self.source.read(
                [index + 1 for index in self.indices],
                window=Window(column, row, width, height),
                out_shape=None if shape is None else (len(self.indices), *shape),
            )
        except RasterioIOError as error:
            raise InputError(
                f"{self.path} cannot be read in rows {row} to {row + height - 1}: "
                "it is truncated or damaged, fetch it again"
            ) from error
        return digital_numbers(np.moveaxis(raw, 0, -1), self.offset, self.source.nodata)


@contextmanager
def open_scene(
    path: Path, band_input: BandInput, bands: Sequence[str] | None = None, offset: int = 0
) -> Iterator[Scene]:
    """Open a Sentinel-2 raster of DN to read the bands of `band_input`, in their order.

    `bands` names the file's bands in file order; by default the file's band descriptions do.
    `offset` is subtracted from every DN (1000 for processing baseline 04.00 and later).
    Raises InputError where the file is no georeferenced 16-bit raster or lacks a band.
    """
    check_offset(offset)
    if not path.is_file():
        raise InputError(f"{path} is not a file: give the path of a GeoTIFF scene")
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_PAM_ENABLED="NO"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)  # refused below
                source = stack.enter_context(rasterio.open(path))
        except RasterioIOError as error:
            raise InputError(
                f"{path} cannot be opened as a raster: give a GeoTIFF that is complete"
            ) from error
        _check_pixels(path, source)
        bands = _described_bands(path, source) if bands is None else bands
        names = band_names(bands, source.count, str(path))
        yield Scene(path, source, band_input.indices(names, str(path)), offset)


def _check_pixels(path: Path, source: rasterio.DatasetReader) -> None:
    crs = source.crs
    on_earth = crs is not None and (crs.is_projected or crs.is_geographic)
    if not on_earth or source.transform.is_identity:
        raise InputError(
            f"{path} has no coordinate reference system or no geotransform: "
            "assign them with `rio edit-info --crs EPSG:... --transform ...`"
        )
    for dtype in source.dtypes:
        if dtype not in ("uint16", "int16"):
            raise InputError(
                f"{path} holds {dtype} but digital numbers are expected (uint16 or int16, "
                "reflectance x 10,000): convert it, for example with `gdal_calc.py`"
            )


def _described_bands(path: Path, source: rasterio.DatasetReader) -> list[str]:
    names = [description or "" for description in source.descriptions]
    if not any(map(BAND_NAME.match, names)):
        raise InputError(
            f"{path} does not name its bands: list them in the file's order, "
            "for example --bands B02 B03 B04 B08"
        )
    return names


def band_names(bands: Sequence[str], count: int, source: str) -> list[str]:
    """Our spelling of the names of all `count` bands of `source`.

    Raises InputError where there are more or fewer, or one comes twice.
    """
    names = [band_name(band) for band in bands]
    if len(names) != count:
        raise InputError(f"{source} has {count} bands but {len(names)} names are given")
    twice = sorted({name for name in names if BAND_NAME.match(name) and names.count(name) > 1})
    if twice:
        raise InputError(
            f"{source} has band {', '.join(twice)} more than once: give a scene of a single date"
        )
    return names


@dataclass(frozen=True)
class Layer:
    """One single-band uint8 GeoTIFF to write; 0 is nodata.

    `overview` is the resampling that makes its overviews; `colours` the colour table, if any.
    """

    path: Path
    description: str
    overview: str
    tags: Mapping[str, str] = field(default_factory=dict)
    colours: Mapping[int, tuple[int, int, int]] | None = None


@contextmanager
def write_cogs(
    layers: Sequence[Layer], like: rasterio.DatasetReader
) -> Iterator[list[rasterio.io.DatasetWriter]]:
    """Writers, one per layer, on the grid of `like`; the files appear when the block ends well.

    Pixels go to a temporary folder beside each path, are copied there as a cloud-optimised GeoTIFF
    and moved into place, all layers together at the end: a failure leaves nothing behind and keeps
    what was there. Raises InputError at once where a path cannot be written.
    """
    grid = {name: getattr(like, name) for name in ("crs", "transform", "height", "width")}
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_PAM_ENABLED="NO"))
        # The pixels as they are, and at worst as much again as a cloud-optimised GeoTIFF.
        room = 2 * like.height * like.width * len(layers)
        folders = [Path(stack.enter_context(_folder_beside(layer.path, room))) for layer in layers]
        with ExitStack() as open_writers:
            yield [
                open_writers.enter_context(_plain_tiff(folder / "plain.tif", layer, grid))
                for layer, folder in zip(layers, folders, strict=True)
            ]
        for layer, folder in zip(layers, folders, strict=True):
            rasterio.shutil.copy(
                folder / "plain.tif",
                folder / "cog.tif",
                driver="COG",
                compress="DEFLATE",
                overview_resampling=layer.overview,
                bigtiff="IF_SAFER",
                num_threads="ALL_CPUS",
            )
        for layer, folder in zip(layers, folders, strict=True):
            os.replace(folder / "cog.tif", layer.path)


def _folder_beside(path: Path, room: int) -> TemporaryDirectory:
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"{path} would be a GeoTIFF: give a name that ends in .tif")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file in it")
    try:
        if shutil.disk_usage(path.parent).free < room:
            raise InputError(
                f"{path} cannot be written: its disk has less than the {room / 1e6:,.1f} MB free "
                "that this takes, make room or give another folder"
            )
        return TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): give a path in an existing folder that "
            "may be written to"
        ) from error


def _plain_tiff(path: Path, layer: Layer, grid: Mapping) -> rasterio.io.DatasetWriter:
    sink = rasterio.open(
        path, "w", driver="GTiff", count=1, dtype="uint8", nodata=0, bigtiff="IF_SAFER", **grid
    )
    sink.set_band_description(1, layer.description)
    sink.update_tags(**layer.tags)
    if layer.colours is not None:
        sink.write_colormap(1, layer.colours)
    return sink
