"""Sentinel-2 products on disk: finding them, what their metadata says, reading them on any grid.

A product is a folder S2?_MSIL1C_*.SAFE or S2?_MSIL2A_*.SAFE in ESA's layout, or a folder with a
GeoTIFF for each band (`B02.tif`, `B2.tif`, `…_B02_10m.tif`), of 10, 20 and 60 m.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.warp import Resampling, reproject, transform_bounds
from rasterio.windows import Window, from_bounds

from jaxcrop.data.bands import SENTINEL2_BANDS
from jaxcrop.errors import InputError
from jaxcrop_datasets.rasters import Grid, grid_of, open_raster

_SAFE = re.compile(r"S2[A-Z]_MSIL(1C|2A)_\d{8}T\d{6}_.*\.SAFE", re.IGNORECASE)
_BAND = re.compile(
    r"(?:.*_)?B(?P<band>0?[1-9]|1[0-2]|8A)(?:_(?P<metres>10|20|60)m)?\.(?:tiff?|jp2)", re.IGNORECASE
)
_METRES = {"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B08": 10, "B09": 60, "B10": 60}
"""Size of the bands' pixels; the others' is 20 m."""


@dataclass(frozen=True)
class Scene:
    """A product: its identifier, day (YYYY-MM-DD), level, and the file of each band.

    `radio_add_offset` is what the metadata adds to digital numbers, with ESA's sign (-1000, or 0),
    `cloud` its share of clouds in percent; None where it does not say. `grid` is that of B02.
    """

    name: str
    day: str
    product: Literal["L1C", "L2A"]
    files: Mapping[str, Path]
    radio_add_offset: int | None
    cloud: float | None
    grid: Grid

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands of the product in the order of the records: an L2A has no B10."""
        return bands_of(self.product)

    def read(self, grid: Grid, bands: Sequence[str] | None = None) -> NDArray[np.uint16]:
        """Digital numbers (height, width, band) on a grid, by bilinear interpolation.

        A pixel is 0 in all bands where one of the source pixels between which it lies is missing
        (0) in any, or it lies beyond them. Raises InputError for a file that cannot be read.
        """
        names = self.bands if bands is None else bands
        image = np.empty((grid.height, grid.width, len(names)), np.uint16)
        for index, band in enumerate(names):
            image[..., index] = _warped(self.files[band], grid)
        image[(image == 0).any(axis=-1)] = 0
        return image


def bands_of(product: Literal["L1C", "L2A"]) -> tuple[str, ...]:
    """The bands of a product level, in the order of the records."""
    return tuple(band for band in SENTINEL2_BANDS if product == "L1C" or band != "B10")


def find_scenes(folder: Path) -> list[Scene]:
    """The products in a folder and the folders in it, or that it is itself, by name.

    Raises InputError for none, and for a product that lacks a band, its metadata or a projection.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: give the folder of Sentinel-2 products")
    scenes = []
    for path, folders, files in os.walk(folder):
        here = Path(path)
        if _SAFE.fullmatch(here.name):
            scenes.append(_safe(here))
        elif any(_BAND.fullmatch(name) for name in files):
            scenes.append(_plain(here))
        else:
            continue
        folders.clear()  # nothing below is another product
    if not scenes:
        raise InputError(
            f"{folder} holds no Sentinel-2 product: give SAFE folders, or folders of band "
            "GeoTIFFs (B02.tif)"
        )
    return sorted(scenes, key=lambda scene: (scene.name, scene.day))


def _safe(folder: Path) -> Scene:
    product = "L1C" if "_MSIL1C_" in folder.name.upper() else "L2A"
    images = sorted(folder.glob("GRANULE/*/IMG_DATA"))
    if len(images) != 1:
        raise InputError(
            f"{folder} has {len(images)} folders GRANULE/*/IMG_DATA, not 1: fetch the product again"
        )
    path = folder / f"MTD_MSI{product}.xml"
    try:
        metadata = ElementTree.parse(path)
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"{path} is missing or damaged: fetch the product again") from error
    kind = "RADIO" if product == "L1C" else "BOA"
    offsets = [element.text for element in metadata.iter(f"{kind}_ADD_OFFSET")]
    return _scene(
        folder,
        name=folder.name[: -len(".SAFE")],
        dated=folder.name.split("_")[2],
        product=product,
        files=images[0].rglob("*.jp2"),
        offsets=offsets or ["0"],  # before baseline 04.00
        cloud=metadata.findtext(".//Cloud_Coverage_Assessment"),
    )


def _plain(folder: Path) -> Scene:
    """A folder of band files, whose metadata.json may be the properties that Earth Engine gives."""
    path = folder / "metadata.json"
    try:
        metadata: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        name = str(metadata.get("PRODUCT_ID", folder.name))
        collection = str(metadata.get("system:id", ""))
        baseline = metadata.get("PROCESSING_BASELINE")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is no JSON object: mend or remove it") from error
    offsets = [value for key, value in metadata.items() if "_ADD_OFFSET" in key]
    if "HARMONIZED" in collection or (baseline and str(baseline) < "04.00"):
        offsets = ["0"]
    files = [file for file in folder.iterdir() if _BAND.fullmatch(file.name)]
    has_cirrus = any(_band(file) == "B10" for file in files)
    return _scene(
        folder,
        name=name,
        dated=name if re.search(r"\d{8}", name) else folder.name,
        product="L1C" if has_cirrus else "L2A",
        files=files,
        offsets=offsets,
        cloud=metadata.get("CLOUDY_PIXEL_PERCENTAGE"),
    )


def _scene(
    folder: Path,
    *,
    name: str,
    dated: str,
    product: Literal["L1C", "L2A"],
    files: Iterable[Path],
    offsets: Sequence[str | int | float],
    cloud: str | float | None,
) -> Scene:
    """A product of what its folder says; `dated` is the text in which its day stands."""
    chosen: dict[str, Path] = {}
    for file in sorted(files):
        band = _band(file)
        if band and (band not in chosen or _strangeness(file) < _strangeness(chosen[band])):
            chosen[band] = file
    missing = [band for band in bands_of(product) if band not in chosen]
    if missing:
        raise InputError(f"{folder} lacks band {', '.join(missing)}: fetch the product again")
    try:
        day = date.fromisoformat(re.search(r"\d{4}-?\d{2}-?\d{2}", dated)[0]).isoformat()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{folder} does not say its day: name it as T34HCH_20170301, or as its product"
        ) from error
    try:
        stated = {int(float(offset)) for offset in offsets}
        share = None if cloud is None else float(cloud)
    except (TypeError, ValueError) as error:
        raise InputError(f"the metadata of {folder} holds no number: fetch it again") from error
    if len(stated) > 1:
        raise InputError(
            f"the metadata of {folder} states the offsets {sorted(stated)}: bands that differ "
            "cannot be read, give another product"
        )
    with open_raster(chosen["B02"], _driver(chosen["B02"])) as file:
        grid = grid_of(file, chosen["B02"])
    return Scene(name, day, product, chosen, next(iter(stated), None), share, grid)


def _band(file: Path) -> str | None:
    """Which band the file holds by its name, or None."""
    match = _BAND.fullmatch(file.name)
    return match and f"B{match['band'].upper():0>2}"


def _strangeness(file: Path) -> int:
    """How far the file's pixels are from those that its band was taken with, 0 at best."""
    metres = _BAND.fullmatch(file.name)["metres"]
    own = _METRES.get(_band(file), 20)
    return abs(int(metres or own) - own)


def _driver(file: Path) -> str:
    return "JP2OpenJPEG" if file.suffix.lower() == ".jp2" else "GTiff"


def _warped(path: Path, target: Grid) -> NDArray[np.uint16]:
    """A band (height, width) on the target grid; 0 where a pixel that it needs is 0 or beyond."""
    warped = np.zeros((target.height, target.width), np.uint16)
    with open_raster(path, _driver(path)) as file:
        if file.count != 1 or file.dtypes[0] != "uint16":
            raise InputError(
                f"{path} has {file.count} bands of {file.dtypes[0]}: a band is a file of its own "
                "of uint16, digital numbers (reflectance x 10,000)"
            )
        grid = grid_of(file, path)
        box = (
            target.bounds
            if grid.crs == target.crs
            else transform_bounds(target.crs, grid.crs, *target.bounds)
        )
        if not all(map(math.isfinite, box)):
            return warped
        rows, columns = from_bounds(*box, grid.transform).toslices()
        # The kernel reaches one pixel, or one of the target's where these are larger.
        reach = 2 + math.ceil((rows.stop - rows.start) / target.height)
        top, bottom = max(rows.start - reach, 0), min(rows.stop + reach, grid.height)
        left, right = max(columns.start - reach, 0), min(columns.stop + reach, grid.width)
        if top >= bottom or left >= right:
            return warped
        window = Window(left, top, right - left, bottom - top)
        source, transform = file.read(1, window=window), file.window_transform(window)
    _bilinear(source, transform, grid, warped, target)
    missing = source == 0
    if missing.any():
        touched = np.zeros(warped.shape, np.float32)
        _bilinear(missing.astype(np.float32), transform, grid, touched, target)
        warped[touched > 0] = 0
    return warped


def _bilinear(
    source: NDArray, transform: Affine, grid: Grid, warped: NDArray, target: Grid
) -> None:
    reproject(
        source,
        warped,
        src_transform=transform,
        src_crs=grid.crs,
        dst_transform=target.transform,
        dst_crs=target.crs,
        resampling=Resampling.bilinear,
    )
