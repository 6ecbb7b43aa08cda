"""Cutting chips from Sentinel-2 products where label maps have crops."""

import hashlib
import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform_bounds

from jaxcrop.crops import MAIZE, RICE, SOYBEAN, WHEAT
from jaxcrop.errors import InputError
from jaxcrop.files import replacing
from jaxcrop_datasets.codes import Codes
from jaxcrop_datasets.labels import LabelFields, LabelMaps, open_labels
from jaxcrop_datasets.radiometry import cloudy_share, find_offset, nodata_share, remove_offset
from jaxcrop_datasets.rasters import Grid
from jaxcrop_datasets.scenes import Scene, find_scenes
from jaxcrop_datasets.tiling import WEB_MERCATOR, Tile, tiles_over

_EVERY = 8
_CROPS = 128
"""A tile is taken where of every 8th pixel, 32 x 32, this many are a crop (datasets_spec 5)."""

_SETTINGS = "cut.json"
"""In the folder that receives the chips: how they were chosen."""


@dataclass(frozen=True)
class ChipCutter:
    """Cuts the chip of a tile, and the labels over it; any process can, given its copy.

    A chip takes the `dates` days on which the fewest of its pixels are missing or cloudy by the
    paper's rule, among the scenes that hold at least the share `min_valid` of its pixels.
    """

    scenes: tuple[Scene, ...]
    labels: LabelMaps | LabelFields
    codes: Codes
    out: Path
    year: int
    dates: int
    min_valid: float

    def tiles(self) -> list[Tile]:
        """The tiles that meet both a scene's bounding box and a label map's."""
        extents = {(scene.grid.crs, scene.grid.bounds) for scene in self.scenes}
        tiles = sorted({tile for crs, box in extents for tile in tiles_over(box, crs)})
        boxes = np.array([tile.grid.bounds for tile in tiles]).reshape(-1, 4)
        left, bottom, right, top = boxes.T
        labelled = np.zeros(len(tiles), bool)
        for crs, box in self.labels.extents():
            west, south, east, north = transform_bounds(crs, WEB_MERCATOR, *box)
            labelled |= (left < east) & (right > west) & (bottom < north) & (top > south)
        return [tiles[index] for index in np.flatnonzero(labelled)]

    def cut(self, tile: Tile) -> bool:
        """Write chip and labels of a tile, unless they exist, and say whether there are any.

        There are none where too few pixels are crops, or too few scenes cover the tile. The chip
        is written last, and whole: where it exists all is done. Raises InputError for a scene
        or label map that cannot be read.
        """
        name = tile.name(self.year)
        chip = self.out / "chips" / (f"{name}.tif" if self.dates == 1 else name)
        if chip.exists():
            return True
        raw = self.labels.codes_in(tile.grid)
        label = self.out / "labels" / f"{name}.tif"
        classes = self.codes.harmonise(raw[::_EVERY, ::_EVERY], label)
        if np.isin(classes, (MAIZE, SOYBEAN, RICE, WHEAT)).sum() < _CROPS:
            return False
        images = self._images(tile.grid)
        if len(images) < self.dates:
            return False
        with replacing(label) as temporary:
            _write(temporary, raw[None], tile.grid, nodata=self.codes.outside, compress="lzw")
        if self.dates == 1:
            with replacing(chip) as temporary:
                _write_image(temporary, *images[0], tile.grid)
            return True
        series = chip.with_name(f".{name}.tmp")
        rmtree(series, ignore_errors=True)
        series.mkdir()
        for scene, image in images:
            _write_image(series / f"{scene.day}.tif", scene, image, tile.grid)
        os.replace(series, chip)
        return True

    def _images(self, grid: Grid) -> list[tuple[Scene, NDArray[np.uint16]]]:
        """The best scenes, one for each day, and what they show (height, width, band)."""
        near = [scene for scene in self.scenes if _meets(scene, grid)]
        if len({scene.day for scene in near}) < self.dates:
            return []
        near.sort(key=lambda scene: (scene.cloud is None, scene.cloud, scene.day, scene.name))
        chosen: dict[str, tuple[Scene, NDArray[np.uint16]]] = {}

        def take(scene: Scene) -> None:
            if scene.day not in chosen and len(chosen) < self.dates:
                image = scene.read(grid)
                if nodata_share(image, scene.bands) <= 1 - self.min_valid:
                    chosen[scene.day] = scene, image

        flawed = []
        for scene in near:
            if len(chosen) < self.dates:  # else no need to look: JPEG 2000 is slow to read
                share = self._bad_share(scene, grid) if len(near) > 1 else 0
                if share == 0:
                    take(scene)
                elif share is not None:
                    flawed.append((share, scene))
        for _, scene in sorted(flawed, key=lambda entry: entry[0]):
            take(scene)
        return list(chosen.values())

    def _bad_share(self, scene: Scene, grid: Grid) -> float | None:
        """Share of missing or cloudy pixels, or None where the scene misses too many."""
        knows = scene.product == "L2A" or scene.radio_add_offset is not None
        bands = ("B02", "B03") if knows else ("B02", "B03", "B10")
        image = scene.read(grid, bands)
        missing = nodata_share(image, bands)
        if missing > 1 - self.min_valid:
            return None
        offset, _ = find_offset(image, bands, scene.day, scene.radio_add_offset)
        return missing + cloudy_share(remove_offset(image, offset), bands)


def cut(
    scenes: Path,
    labels: Path,
    out: Path,
    codes: Codes,
    *,
    field: str | None = None,
    year: int,
    chips: int = 1000,
    dates: int = 1,
    seed: int = 0,
    min_valid: float = 0.99,
    workers: int | None = None,
) -> int:
    """Cut `chips` chips into the folder `out`, or as many as there are, and return how many.

    The tiles under scenes and label maps (of polygons the attribute `field` is the code) are taken
    in the order of the hash of seed and name, and of these the first that `ChipCutter.cut` finds
    crops and scenes for. Chips that are in `out` already stay, so a run that was killed goes on.
    Raises InputError for files that cannot be read or written, and where no chip can be had.
    """
    if chips < 1 or dates < 1:
        raise InputError(f"{chips} chips of {dates} dates are none: ask for at least one of each")
    if labels.resolve() == (out / "labels").resolve():
        raise InputError(f"{labels} would receive the labels of the chips: choose another --out")
    products = find_scenes(scenes)
    levels = {scene.product for scene in products}
    if len(levels) > 1:
        raise InputError(f"{scenes} holds products of L1C and L2A: give those of one level")
    sources = open_labels(labels, codes, field)
    cutter = ChipCutter(tuple(products), sources, codes, out, year, dates, min_valid)
    settings = {
        "year": year,
        "dates": dates,
        "seed": seed,
        "min_valid": min_valid,
        "product": products[0].product,
    }
    tiles = sorted(
        cutter.tiles(),
        key=lambda tile: hashlib.blake2b(f"{seed} {tile.name(year)}".encode()).digest(),
    )
    made = 0
    try:
        _prepare(out, settings)
        with warnings.catch_warnings(), ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            # Rasterio hides it while it warps, but of two threads the one shows the other's.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            while made < chips and tiles:
                wanted = chips - made  # never more at once, so that no chip too many is made
                made += sum(pool.map(cutter.cut, tiles[:wanted]))
                tiles = tiles[wanted:]
    except OSError as error:
        raise InputError(f"cannot write to {out} ({error}): choose another folder") from error
    if not made:
        raise InputError(
            f"no place under the scenes in {scenes} has crops in {labels} and {dates} clear "
            "date(s): give scenes and label maps of one region"
        )
    return made


def _prepare(out: Path, settings: dict) -> None:
    """Make the folders. Raises InputError where `out` has chips that were chosen otherwise."""
    for name in ("chips", "labels"):
        (out / name).mkdir(parents=True, exist_ok=True)
    path, text = out / _SETTINGS, json.dumps(settings, indent=1) + "\n"
    if not path.exists() or not any((out / "chips").glob("[!.]*")):
        with replacing(path) as temporary:
            temporary.write_text(text)
    elif path.read_text() != text:
        raise InputError(
            f"{path} says that these chips were cut otherwise: give the same year, dates and seed, "
            "or another folder"
        )


def _meets(scene: Scene, grid: Grid) -> bool:
    west, south, east, north = transform_bounds(grid.crs, scene.grid.crs, *grid.bounds)
    left, bottom, right, top = scene.grid.bounds
    return left < east and right > west and bottom < north and top > south


def _write_image(path: Path, scene: Scene, image: NDArray[np.uint16], grid: Grid) -> None:
    """Write a chip as the builders read it. (Compression saves a third and triples the time.)"""
    tags = {"ACQUISITION_DATE": scene.day, "PRODUCT": scene.name}
    if scene.radio_add_offset is not None:
        tags["RADIO_ADD_OFFSET"] = str(scene.radio_add_offset)
    _write(path, np.moveaxis(image, -1, 0), grid, tags, scene.bands)


def _write(
    path: Path,
    planes: NDArray,
    grid: Grid,
    tags: dict[str, str] | None = None,
    descriptions: tuple[str, ...] = (),
    **options,
) -> None:
    count, height, width = planes.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=planes.dtype,
        crs=grid.crs,
        transform=grid.transform,
        interleave="band",
        blockysize=height,  # one block for each band: read in less than half the time
        **options,
    ) as file:
        file.write(planes)
        file.update_tags(**(tags or {}))
        if descriptions:
            file.descriptions = descriptions
