"""Chips: finding their files in a folder, splitting them, and reading one to a record."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxcrop.crops import IGNORE
from jaxcrop.errors import InputError
from jaxcrop_datasets.codes import Codes
from jaxcrop_datasets.labels import LabelFields, LabelMaps
from jaxcrop_datasets.radiometry import (
    OFFSET,
    Offset,
    cloudy_share,
    find_offset,
    nodata_share,
    remove_offset,
)
from jaxcrop_datasets.rasters import Grid, crs_text, geotiffs, grid_of, open_raster

Problem = tuple[str, str]
"""A file, and in a sentence what is wrong with it."""


class ChipFiles(NamedTuple):
    """A chip before it is read: its id and its files, one for each date."""

    chip_id: str
    paths: tuple[Path, ...]


class _Image(NamedTuple):
    """One file of a chip."""

    values: NDArray[np.uint16]  # (height, width, band)
    grid: Grid
    day: str
    offset: Offset
    synthetic: bool


def find_chips(folder: Path) -> tuple[list[ChipFiles], list[Problem]]:
    """The chips of a folder by id: `<id>.tif`, or the folder `<id>/` of one file for each date.

    An id that occurs again, and a folder without files, is a problem of its own. Raises InputError
    where `folder` is missing or holds no chip.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: it should hold GeoTIFF files")
    chips: dict[str, ChipFiles] = {}
    problems = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not (
            path.is_dir() or path.suffix.lower() in (".tif", ".tiff")
        ):
            continue
        chip_id = path.name if path.is_dir() else path.stem
        try:
            if chip_id in chips:
                raise InputError(
                    f"chip {chip_id} occurs twice in {folder}: remove or rename {path}"
                )
            paths = geotiffs(path) if path.is_dir() else [path]
            chips[chip_id] = ChipFiles(chip_id, tuple(paths))
        except InputError as error:
            problems.append((str(path), str(error)))
    if not chips:
        raise InputError(f"{folder} holds no GeoTIFF file (*.tif): put them there")
    return list(chips.values()), problems


def split_chips(chip_ids: Sequence[str]) -> dict[str, list[str]]:
    """Chip ids by split: 10 % test, then 10 % of the rest validation, at least one chip each.

    A chip's place is the rank of its id's hash, so it depends on the ids alone, not on the order
    of the files or the machine; and so the first n of a split are a random sample of it. Raises
    InputError for fewer than three chips.
    """
    if len(chip_ids) < 3:
        raise InputError(
            f"{len(chip_ids)} chips are too few to split into train, validation and test: "
            "give at least 3"
        )
    ranked = sorted(chip_ids, key=lambda chip_id: hashlib.blake2b(chip_id.encode()).digest())
    tests = max(1, round(0.1 * len(ranked)))
    rest = ranked[tests:]
    validations = max(1, round(0.1 * len(rest)))
    return {"train": rest[validations:], "validation": rest[:validations], "test": ranked[:tests]}


@dataclass(frozen=True)
class ChipReader:
    """Reads the files of a chip to a record; any process can, given its copy.

    `bands` is the order in the record, `file_bands` that of files whose bands have no description,
    `size` height and width in pixels, `codes` and `labels` what the label maps hold. A chip that
    gives no date has `day` (MM-DD) of the year that its id begins with, or else of `year`.
    `keep_offset` leaves digital numbers as they are.
    """

    bands: tuple[str, ...]
    file_bands: tuple[str, ...]
    size: int
    year: int
    day: str
    codes: Codes
    labels: LabelMaps | LabelFields
    keep_offset: bool

    def read(self, chip: ChipFiles) -> tuple[dict, bool]:
        """The record of a chip, and whether it is synthetic. Raises InputError for bad files."""
        images = [self._image(path, chip.chip_id) for path in chip.paths]
        for path, image in zip(chip.paths, images, strict=True):
            if image.grid != images[0].grid:
                raise InputError(
                    f"{path} lies on another grid than {chip.paths[0]}: give the dates of a chip "
                    "in one projection, origin and pixel size"
                )
        if len({image.day for image in images}) != len(images):
            raise InputError(
                f"two files of chip {chip.chip_id} in {chip.paths[0].parent} have the same date: "
                "name each file by its date (2017-03-01.tif) or set its tag ACQUISITION_DATE"
            )
        images.sort(key=lambda image: image.day)
        grid = images[0].grid
        code = self.labels.over(grid, chip.paths[0])
        label = self.codes.harmonise(code, chip.paths[0])
        if (label == IGNORE).all():
            raise InputError(
                f"{chip.paths[0]} has no labelled pixel, all are ignored: remove the chip"
            )
        clear = [remove_offset(image.values, image.offset.value) for image in images]
        record = {
            "chip_id": chip.chip_id,
            "image": np.stack([image.values for image in images] if self.keep_offset else clear),
            "label": label,
            "code": code.astype(self.codes.stored_dtype, copy=False),
            "dates": [image.day for image in images],
            "crs": crs_text(grid.crs),
            "transform": np.array(grid.transform[:6], np.float64),
            "offset": np.array([image.offset.value for image in images], np.int32),
            "offset_source": [image.offset.source for image in images],
            "cloudy": np.array([cloudy_share(image, self.bands) for image in clear], np.float32),
            "nodata": np.array([nodata_share(image, self.bands) for image in clear], np.float32),
        }
        return record, any(image.synthetic for image in images)

    def _image(self, path: Path, chip_id: str) -> _Image:
        with open_raster(path) as file:
            if file.count != len(self.bands):
                raise InputError(
                    f"{path} has {file.count} bands, not {len(self.bands)}: give all of "
                    f"{', '.join(self.file_bands)}"
                )
            if set(file.dtypes) != {"uint16"}:
                raise InputError(
                    f"{path} holds {file.dtypes[0]}, not uint16: give digital numbers "
                    "(reflectance x 10,000)"
                )
            if file.shape != (self.size, self.size):
                raise InputError(
                    f"{path} has {file.height} x {file.width} pixels, not {self.size} x "
                    f"{self.size}: cut it to this size"
                )
            grid = grid_of(file, path)
            order = self._band_order(file.descriptions, path)
            tags = file.tags()
            planes = file.read(indexes=[plane + 1 for plane in order])
        if not planes.any():
            raise InputError(f"{path} is empty, all its pixels are 0: remove the chip")
        values = np.ascontiguousarray(planes.transpose(1, 2, 0))
        day = self._date(path, chip_id, tags)
        offset = find_offset(values, self.bands, day, _stated_offset(path, tags))
        return _Image(values, grid, day, offset, tags.get("SYNTHETIC") == "YES")

    def _band_order(self, descriptions: Sequence[str | None], path: Path) -> list[int]:
        """Position in the file of each of the bands: by their descriptions, else `file_bands`."""
        found = descriptions if any(descriptions) else self.file_bands
        if sorted(map(str, found)) != sorted(self.bands):
            raise InputError(
                f"{path} describes its bands as {', '.join(map(str, found))}: describe them as "
                f"{', '.join(self.bands)} in the file's order, or not at all"
            )
        return [found.index(band) for band in self.bands]

    def _date(self, path: Path, chip_id: str, tags: Mapping[str, str]) -> str:
        year, _, rest = chip_id.partition("_")
        default = f"{year if rest and len(year) == 4 else self.year}-{self.day}"
        stated = tags.get("ACQUISITION_DATE")
        for text in (path.stem, default) if stated is None else (stated,):
            with suppress(ValueError):
                return date.fromisoformat(text).isoformat()
        raise InputError(
            f"{path} has the tag ACQUISITION_DATE {stated!r}, no date: write it as YYYY-MM-DD"
        )


def _stated_offset(path: Path, tags: Mapping[str, str]) -> int | None:
    stated = tags.get("RADIO_ADD_OFFSET")
    if stated not in (None, "0", str(-OFFSET)):
        raise InputError(
            f"{path} has the tag RADIO_ADD_OFFSET {stated!r}: write 0 or {-OFFSET}, as ESA does"
        )
    return None if stated is None else int(stated)
