"""What every TFDS builder of crop chips shares: GeoTIFF chips and label maps in, records out.

A builder of ours is a folder `jaxcrop_datasets/<name>/` with a `<name>_dataset_builder.py` whose
`Builder` subclasses `CropChips`. Building and reading need neither TensorFlow nor Beam.
"""

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import tensorflow_datasets as tfds
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import array_bounds
from rasterio.warp import Resampling, reproject, transform_bounds
from rasterio.windows import Window, from_bounds

from jaxcrop.crops import IGNORE
from jaxcrop.errors import InputError

OUTSIDE = np.iinfo(np.int32).min
"""Raw code of a pixel that no label map covers; 0 would not do, it is rice in NCCM."""

UNKNOWN = 255
"""Entry of the lookup table for a raw code that the dataset does not define."""


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


class CropChips(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS builder of `<source>/chips/*.tif` labelled by `<source>/labels/*.tif`.

    A chip of several dates is a folder of its files, `<source>/chips/<chip id>/*.tif`. Label maps
    may be in any number, projection and resolution: each chip takes the labels that lie over it,
    warped to its grid by nearest neighbour and then harmonised.

    A subclass states: `BANDS`, in the order of the records; `FILE_BANDS`, their order in files
    whose bands have no description; `CODES`, raw code → (raw name, class of `jaxcrop.crops`);
    `SIZE`, the chips' height and width in pixels; `DATE`, the acquisition date (ISO) of a chip
    that gives none in its tag `ACQUISITION_DATE` or as its file's name; `HOMEPAGE`, `LICENSE`,
    `VERSION` and `RELEASE_NOTES`. TFDS takes description, citation and tags from files beside it.
    """

    BANDS: tuple[str, ...]
    FILE_BANDS: tuple[str, ...]
    CODES: Mapping[int, tuple[str, int]]
    SIZE: int = 256
    DATE: str
    HOMEPAGE: str
    LICENSE: str
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the chips in chips/*.tif and the label maps in labels/*.tif."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        pixels = (self.SIZE, self.SIZE)
        tensor, raw_bytes = tfds.features.Tensor, tfds.features.Encoding.BYTES
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "chip_id": tfds.features.Text(),
                    "image": tensor(
                        shape=(None, *pixels, len(self.BANDS)), dtype=np.uint16, encoding=raw_bytes
                    ),
                    "label": tensor(shape=pixels, dtype=np.uint8, encoding=raw_bytes),
                    "dates": tfds.features.Sequence(tfds.features.Text()),
                    "crs": tfds.features.Text(),
                    "transform": tensor(shape=(6,), dtype=np.float64, encoding=raw_bytes),
                }
            ),
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            metadata=tfds.core.MetadataDict(
                bands=list(self.BANDS),
                synthetic=False,
                codes={
                    str(code): {"name": name, "class": crop}
                    for code, (name, crop) in self.CODES.items()
                },
            ),
        )

    def _split_generators(self, dl_manager):
        source = Path(dl_manager.manual_dir)
        chips = find_chips(source / "chips")
        labels = LabelMaps(source / "labels", self.CODES)
        return {
            split: self._generate_examples([(chip, chips[chip]) for chip in ids], labels)
            for split, ids in split_chips(list(chips)).items()
        }

    def _generate_examples(self, chips, labels):
        for chip_id, paths in chips:
            yield chip_id, self._record(chip_id, paths, labels)

    def _record(self, chip_id: str, paths: Sequence[Path], labels: "LabelMaps") -> dict:
        images, grids, dates = zip(*map(self._read_image, paths), strict=True)
        for path, grid in zip(paths, grids, strict=True):
            if grid != grids[0]:
                raise InputError(
                    f"{path} lies on another grid than {paths[0]}: give the dates of a chip in "
                    "one projection, origin and pixel size"
                )
        if len(set(dates)) != len(dates):
            raise InputError(
                f"two files of chip {chip_id} in {paths[0].parent} have the same date: name each "
                "file by its date (2017-03-01.tif) or set its tag ACQUISITION_DATE"
            )
        order = sorted(range(len(dates)), key=dates.__getitem__)
        return {
            "chip_id": chip_id,
            "image": np.stack([images[i] for i in order]),
            "label": labels.over(grids[0], paths[0]),
            "dates": [dates[i] for i in order],
            "crs": _crs_text(grids[0].crs),
            "transform": np.array(grids[0].transform[:6], np.float64),
        }

    def _read_image(self, path: Path) -> tuple[NDArray[np.uint16], Grid, str]:
        """One file of a chip: its image (height, width, band) in the order of BANDS, grid, date."""
        with _open(path) as file:
            if file.count != len(self.BANDS):
                raise InputError(
                    f"{path} has {file.count} bands, not {len(self.BANDS)}: give all of "
                    f"{', '.join(self.FILE_BANDS)}"
                )
            if set(file.dtypes) != {"uint16"}:
                raise InputError(
                    f"{path} holds {file.dtypes[0]}, not uint16: give digital numbers "
                    "(reflectance x 10,000)"
                )
            if file.shape != (self.SIZE, self.SIZE):
                raise InputError(
                    f"{path} has {file.height} x {file.width} pixels, not {self.SIZE} x "
                    f"{self.SIZE}: cut it to this size"
                )
            grid = _grid(file, path)
            order = self._band_order(file.descriptions, path)
            tags = file.tags()
            image = file.read(indexes=[i + 1 for i in order])
        if tags.get("SYNTHETIC") == "YES":
            self.info.metadata["synthetic"] = True
        return np.ascontiguousarray(image.transpose(1, 2, 0)), grid, self._date(path, tags)

    def _band_order(self, descriptions: Sequence[str | None], path: Path) -> list[int]:
        """Position in the file of each of BANDS: by the bands' descriptions, else FILE_BANDS."""
        found = descriptions if any(descriptions) else self.FILE_BANDS
        if sorted(map(str, found)) != sorted(self.BANDS):
            raise InputError(
                f"{path} describes its bands as {', '.join(map(str, found))}: describe them as "
                f"{', '.join(self.BANDS)} in the file's order, or not at all"
            )
        return [found.index(band) for band in self.BANDS]

    def _date(self, path: Path, tags: Mapping[str, str]) -> str:
        stated = tags.get("ACQUISITION_DATE")
        for text in (path.stem, self.DATE) if stated is None else (stated,):
            with suppress(ValueError):
                return date.fromisoformat(text).isoformat()
        raise InputError(
            f"{path} has the tag ACQUISITION_DATE {stated!r}, no date: write it as YYYY-MM-DD"
        )


class LabelMaps:
    """The label maps of a folder, found by where they lie.

    Raises InputError where the folder is missing or empty, or a map is no single band of whole
    numbers with a projection.
    """

    def __init__(self, folder: Path, codes: Mapping[int, tuple[str, int]]):
        self._table = np.full(max(codes) + 1, UNKNOWN, np.uint8)
        for code, (_, crop) in codes.items():
            self._table[code] = crop
        self._folder = folder
        self._maps: list[tuple[Path, Grid]] = []
        for path in _tiffs(folder):
            with _open(path) as file:
                if file.count != 1 or not np.issubdtype(file.dtypes[0], np.integer):
                    raise InputError(
                        f"{path} has {file.count} bands of {file.dtypes[0]}: a label map has one "
                        "band of whole numbers, the raw class codes"
                    )
                self._maps.append((path, _grid(file, path)))
        self._projections = {grid.crs.to_wkt(): grid.crs for _, grid in self._maps}
        self._boxes = [(grid.crs.to_wkt(), *grid.bounds) for _, grid in self._maps]

    def over(self, chip: Grid, source: Path) -> NDArray[np.uint8]:
        """Harmonised classes (height, width) on the grid of the chip in the file `source`.

        Where label maps overlap, the first by name that does not say ignore wins. Raises
        InputError where no map covers any of the chip, a code is unknown, or all is ignored.
        """
        label = np.full((chip.height, chip.width), IGNORE, np.uint8)
        covered = False
        for path, grid, box in self._near(chip):
            raw = _warp(path, grid, box, chip)
            inside = raw != OUTSIDE
            covered |= inside.any()
            crops = np.where(inside, self._harmonise(raw, path), IGNORE)
            np.copyto(label, crops, where=label == IGNORE)
        if not covered:
            raise InputError(
                f"{source} lies under no label map: add the one that covers it to "
                f"{self._folder}, or remove the chip"
            )
        if (label == IGNORE).all():
            raise InputError(f"{source} has no labelled pixel, all are ignored: remove the chip")
        return label

    def _near(self, chip: Grid) -> Iterator[tuple[Path, Grid, Box]]:
        """The maps that the chip's bounding box meets, and this box in their projection."""
        chip_boxes = {
            wkt: transform_bounds(chip.crs, crs, *chip.bounds)
            for wkt, crs in self._projections.items()
        }
        for (path, grid), (wkt, left, bottom, right, top) in zip(
            self._maps, self._boxes, strict=True
        ):
            west, south, east, north = chip_boxes[wkt]
            if left < east and right > west and bottom < north and top > south:
                yield path, grid, chip_boxes[wkt]

    def _harmonise(self, raw: NDArray[np.int32], path: Path) -> NDArray[np.uint8]:
        crops = self._table[np.clip(raw, 0, len(self._table) - 1)]
        strange = (raw != OUTSIDE) & ((crops == UNKNOWN) | (raw < 0) | (raw >= len(self._table)))
        if strange.any():
            raise InputError(
                f"{path} holds the unknown code {raw[strange][0]}: the codes are "
                f"{', '.join(map(str, np.flatnonzero(self._table != UNKNOWN)))}"
            )
        return crops


def _warp(path: Path, grid: Grid, box: Box, chip: Grid) -> NDArray[np.int32]:
    """Raw codes on the chip's grid, OUTSIDE where the map has none; only `box` of it is read.

    A nodata value that the file declares is no more than another code: CODES decides.
    """
    rows, columns = from_bounds(*box, grid.transform).toslices()
    margin = 2
    top, bottom = max(rows.start - margin, 0), min(rows.stop + margin, grid.height)
    left, right = max(columns.start - margin, 0), min(columns.stop + margin, grid.width)
    window = Window(left, top, right - left, bottom - top)
    codes = np.full((chip.height, chip.width), OUTSIDE, np.int32)
    with _open(path) as file:
        reproject(
            file.read(1, window=window).astype(np.int32),
            codes,
            src_transform=file.window_transform(window),
            src_crs=grid.crs,
            src_nodata=OUTSIDE,
            dst_transform=chip.transform,
            dst_crs=chip.crs,
            dst_nodata=OUTSIDE,
            resampling=Resampling.nearest,
        )
    return codes


def build_records(
    builder_class: type[CropChips], source: Path, data_dir: Path
) -> tfds.core.DatasetBuilder:
    """Build a dataset from the folder `source` into `data_dir`.

    Nothing stays in `data_dir` of a build that fails. Raises InputError for bad input, for a
    dataset that is built there already and for a folder that cannot be written.
    """
    if not source.is_dir():
        raise InputError(f"{source} is no folder: give the one that holds chips/ and labels/")
    tfds.disable_progress_bar()
    builder = builder_class(data_dir=data_dir)
    if builder.data_path.exists():
        raise InputError(
            f"{builder.data_path} is built already: remove it, or choose another folder"
        )
    # TFDS prints that it downloads, and makes a download folder, though this never does.
    with (
        _removed_if_empty(builder.data_path.parent),
        tempfile.TemporaryDirectory() as downloads,
        redirect_stdout(io.StringIO()),
    ):
        try:
            builder.download_and_prepare(
                file_format="array_record",
                download_dir=downloads,
                download_config=tfds.download.DownloadConfig(manual_dir=source.resolve()),
            )
        except OSError as error:
            raise InputError(
                f"cannot write to {data_dir} ({error}): choose another folder"
            ) from error
    return builder


def split_chips(chip_ids: Sequence[str]) -> dict[str, list[str]]:
    """Chip ids by split: 10 % test, then 10 % of the rest validation, at least one chip each.

    A chip's place is the rank of its id's hash, so it depends on the ids alone, not on the order
    of the files or the machine. Raises InputError for fewer than three chips.
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


def find_chips(folder: Path) -> dict[str, list[Path]]:
    """The files of each chip by chip id: `<id>.tif`, or the folder `<id>/` of one file per date.

    Raises InputError for a folder that is missing or empty and for an id that occurs twice.
    """
    chips: dict[str, list[Path]] = {}
    for path in _tiffs(folder, series=True):
        chip_id = path.name if path.is_dir() else path.stem
        if chip_id in chips:
            raise InputError(f"chip {chip_id} occurs twice in {folder}: remove or rename {path}")
        chips[chip_id] = _tiffs(path) if path.is_dir() else [path]
    return chips


def _tiffs(folder: Path, series: bool = False) -> list[Path]:
    """GeoTIFFs of a folder by name, and its subfolders if it may hold `series`; never none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: it should hold GeoTIFF files")
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in (".tif", ".tiff") or (series and path.is_dir())
    )
    if not paths:
        raise InputError(f"{folder} holds no GeoTIFF file (*.tif): put them there")
    return paths


@contextmanager
def _open(path: Path) -> Iterator[rasterio.DatasetReader]:
    """Open a GeoTIFF, and nothing else that GDAL knows, for reading."""
    try:
        with rasterio.open(path, driver="GTiff") as file:
            yield file
    except RasterioError as error:
        raise InputError(
            f"{path} cannot be read as a GeoTIFF: it is damaged or another format, fetch it again"
        ) from error


def _grid(file: rasterio.DatasetReader, path: Path) -> Grid:
    if file.crs is None:
        raise InputError(f"{path} has no projection (CRS): give a georeferenced GeoTIFF")
    if file.transform.b or file.transform.d or file.transform.e >= 0:
        raise InputError(f"{path} is not north-up: warp it to a grid without rotation or flip")
    return Grid(file.crs, file.transform, file.height, file.width)


def _crs_text(crs: CRS) -> str:
    code = crs.to_epsg()
    return crs.to_wkt() if code is None else f"EPSG:{code}"


@contextmanager
def _removed_if_empty(folder: os.PathLike) -> Iterator[None]:
    """Remove the folder, and its parent if that is new, should the body leave them empty."""
    folder = Path(folder)
    parent_is_new = not folder.parent.exists()
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()
            if parent_is_new:
                folder.parent.rmdir()
