"""The index of built records: where each chip lies, when it was seen, what its labels hold."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64

from jaxcrop.crops import NUM_CLASSES
from jaxcrop.errors import InputError
from jaxcrop.files import replacing

if TYPE_CHECKING:
    import pyarrow

    from jaxcrop.data.reading import Records

FILE = "chips.parquet"
"""The name of the index in the folder of its records."""

_LAYOUT = 1
"""Counts up when the columns change, so that older files are written again."""

_EQUATOR, _FLATTENING = 6_378_137.0, 1 / 298.257223563
"""Radius in metres and flattening of the WGS 84 ellipsoid."""


@dataclass(frozen=True)
class ChipIndex:
    """One row for each chip, sorted by chip id; the columns hold what needs no look at the pixels.

    `position` is that in the stored `split`; `lon` and `lat` are degrees of the centre; `box` is
    west, south, east, north in units of `crs`; `ground` width and height of the chip on the ground
    in metres, which Web Mercator exaggerates; `counts` the label pixels of each class. `dates`,
    `cloudy`, `nodata`, `offset`, `offset_source` are of each date. Of the `valid` pixels, which
    have data in some band on some date, `minimum`, `total` and `squares` are the least digital
    number of each band, the sum and the sum of squares.
    """

    bands: tuple[str, ...]
    chip_id: np.ndarray
    split: np.ndarray
    position: Int64[np.ndarray, " n"]
    lon: Float64[np.ndarray, " n"]
    lat: Float64[np.ndarray, " n"]
    box: Float64[np.ndarray, "n 4"]
    crs: np.ndarray
    ground: Float64[np.ndarray, "n 2"]
    counts: Int64[np.ndarray, "n k"]
    dates: tuple[tuple[str, ...], ...]
    cloudy: tuple[tuple[float, ...], ...]
    nodata: tuple[tuple[float, ...], ...]
    offset: tuple[tuple[int, ...], ...]
    offset_source: tuple[tuple[str, ...], ...]
    valid: Int64[np.ndarray, " n"]
    minimum: Int64[np.ndarray, "n b"]
    total: Int64[np.ndarray, "n b"]
    squares: Int64[np.ndarray, "n b"]

    def __len__(self) -> int:
        return len(self.chip_id)

    @property
    def pixel_hectares(self) -> Float64[np.ndarray, " n"]:
        """The area on the ground of a pixel of each chip."""
        return self.ground.prod(axis=1) / self.counts.sum(axis=1) / 1e4

    def rows(self, chip_ids: Iterable[str]) -> Int64[np.ndarray, " m"]:
        """The row of each chip. Raises InputError naming the first few that are not there."""
        chip_ids = np.array(list(chip_ids), dtype=np.str_)
        rows = np.searchsorted(self.chip_id, chip_ids).clip(max=len(self) - 1)
        unknown = chip_ids[self.chip_id[rows] != chip_ids]
        if unknown.size:
            raise InputError(
                f"the records have no chip {first_few(unknown)}: build these chips too, or leave "
                "them out of the list"
            )
        return rows

    def positions(self, chip_ids: Iterable[str]) -> list[tuple[str, int]]:
        """The stored split of each chip and its position there, as `Records.chips_at` takes it."""
        return [(str(self.split[row]), int(self.position[row])) for row in self.rows(chip_ids)]

    def mean_and_std(
        self, chip_ids: Iterable[str] | None = None
    ) -> tuple[Float64[np.ndarray, " b"], Float64[np.ndarray, " b"]]:
        """Mean and standard deviation of each band over the valid pixels of these chips, or all."""
        rows = slice(None) if chip_ids is None else self.rows(chip_ids)
        pixels = max(self.valid[rows].sum(), 1)
        mean = self.total[rows].sum(axis=0) / pixels
        return mean, np.sqrt(np.maximum(self.squares[rows].sum(axis=0) / pixels - mean**2, 0))


def first_few(chip_ids: Sequence[str]) -> str:
    """Chip ids in a sentence: the first three, and how many more there are."""
    more = f" and {len(chip_ids) - 3} more" if len(chip_ids) > 3 else ""
    return ", ".join(map(str, chip_ids[:3])) + more


def index_of(records: "Records") -> ChipIndex:
    """The index of built records: read from `chips.parquet` in their folder, else made and kept.

    It is made anew where the file is missing, damaged or of other records, and is not kept where
    the folder cannot be written.
    """
    # pyarrow is slow to import: --help does without.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    path = records.folder / FILE
    of_these = {
        "layout": _LAYOUT,
        "records": [records.name, records.variant, records.version],
        "sizes": dict(records.sizes),
        "bands": list(records.bands),
    }
    stamp = {b"jaxcrop": json.dumps(of_these, sort_keys=True).encode()}
    with suppress(OSError, pa.ArrowInvalid):
        table = pq.read_table(path)
        if (table.schema.metadata or {}).items() >= stamp.items():
            return _from_table(table, records.bands)
    rows = [
        {"split": split, "position": position, **_row(record)}
        for split, size in records.sizes.items()
        if size
        for position, record in enumerate(records.raw(split))
    ]
    rows.sort(key=lambda row: row["chip_id"])
    table = pa.Table.from_pylist(rows).replace_schema_metadata(stamp)
    with suppress(OSError):
        write_table(table, path)
    return _from_table(table, records.bands)


def write_table(table: "pyarrow.Table", path: Path) -> None:
    """Write a Parquet file whole or not at all."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    with replacing(path) as draft:
        pq.write_table(table, draft)


def _from_table(table: "pyarrow.Table", bands: tuple[str, ...]) -> ChipIndex:
    columns = {}
    for field in fields(ChipIndex):
        if field.name == "bands":
            continue
        values = table[field.name].to_pylist()
        of_dates = str(field.type).startswith("tuple")
        columns[field.name] = tuple(map(tuple, values)) if of_dates else np.array(values)
    return ChipIndex(bands=bands, **columns)


def _row(record: dict) -> dict:
    image, label = record["image"], record["label"]
    crs = text(record["crs"])
    box = _box(record["transform"], label.shape)
    lon, lat, ground = _on_the_ground(crs, box)
    pixels = image.reshape(-1, image.shape[-1])
    pixels = pixels[pixels.any(axis=1)]
    return {
        "chip_id": text(record["chip_id"]),
        "lon": lon,
        "lat": lat,
        "box": list(box),
        "crs": crs,
        "ground": ground,
        "counts": np.bincount(label.ravel(), minlength=NUM_CLASSES).tolist(),
        "dates": [text(day) for day in record["dates"]],
        "cloudy": np.asarray(record["cloudy"]).tolist(),
        "nodata": np.asarray(record["nodata"]).tolist(),
        "offset": np.asarray(record["offset"]).tolist(),
        "offset_source": [text(source) for source in record["offset_source"]],
        "valid": len(pixels),
        "minimum": pixels.min(axis=0, initial=np.iinfo(np.uint16).max).tolist(),
        "total": pixels.sum(axis=0, dtype=np.int64).tolist(),
        "squares": np.einsum("pb,pb->b", pixels, pixels, dtype=np.int64).tolist(),
    }


def text(value: str | bytes) -> str:
    """A text of a record, which TFDS gives as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _box(transform: np.ndarray, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """West, south, east and north edge of a north-up chip of (height, width) pixels."""
    width, _, west, _, height, north = map(float, transform)
    return west, north + height * shape[0], west + width * shape[1], north


def _on_the_ground(crs: str, box: tuple[float, float, float, float]) -> tuple:
    """Longitude and latitude of a box's centre, and its (width, height) on the ground in metres."""
    from rasterio.warp import transform  # noqa: PLC0415 -- slow to import

    west, south, east, north = box
    x, y = (west + east) / 2, (south + north) / 2
    lons, lats = np.array(
        transform(crs, "EPSG:4326", [x, west, east, x, x], [y, y, y, south, north])
    )
    # The ellipsoid's metres to a radian of latitude and of longitude here.
    squared = _FLATTENING * (2 - _FLATTENING)
    bend = 1 - squared * np.sin(np.radians(lats[0])) ** 2
    to_north = _EQUATOR * (1 - squared) / bend**1.5
    to_east = _EQUATOR / bend**0.5 * np.cos(np.radians(lats[0]))
    across = [
        np.hypot(
            to_east * np.radians(degrees_between(lons[a], lons[b])),
            to_north * np.radians(lats[b] - lats[a]),
        )
        for a, b in ((1, 2), (3, 4))
    ]
    return float(lons[0]), float(lats[0]), [float(length) for length in across]


def degrees_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many degrees longitude b lies east of a, -180 to 180: the shorter way round."""
    return (np.asarray(b) - a + 180) % 360 - 180
