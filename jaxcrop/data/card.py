"""The card of a dataset: what its records hold and how far they speak for more than themselves."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, UInt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jaxcrop.crops import CLASS_NAMES, IGNORE
from jaxcrop.data.card_pictures import pictures
from jaxcrop.data.card_text import markdown
from jaxcrop.data.index import ChipIndex, index_of
from jaxcrop.data.splits import Partition, adjacency, divided
from jaxcrop.errors import InputError
from jaxcrop.figures import save_figure
from jaxcrop.files import replacing

if TYPE_CHECKING:
    from jaxcrop.data.reading import Records


SPECK = 0.1
"""Hectares below which an area is no field but noise: little more than a pixel of 30 m."""


@dataclass(frozen=True)
class Fields:
    """Connected areas of one raw code: harmonised class, ground, whether a chip's edge cuts it."""

    crop: Int[np.ndarray, " f"]
    hectares: Float[np.ndarray, " f"]
    cut: Bool[np.ndarray, " f"]


@dataclass(frozen=True)
class _Pixels:
    """What only the pixels tell: the fields, images of each digital number, pixels of each code."""

    fields: Fields
    histogram: Int64[np.ndarray, "b 65536"]
    codes: Mapping[int, int]


def write_card(records: "Records", out: Path, by: str = "built") -> Path:
    """Write card.md, its numbers as card.json and its pictures to the folder `out`; give card.md.

    `by` says how the chips are split (`jaxcrop.data.splits.divided`). Raises InputError where they
    cannot be, and where the folder cannot be written.
    """
    index = index_of(records)
    partition = divided(index, by)
    pixels = _read_pixels(records, index)
    card = describe(records, index, partition, pixels)
    path = out / "card.md"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in pictures(card, index, partition, pixels.fields).items():
            save_figure(figure, out / name)
        for target, content in (
            (out / "card.json", json.dumps(card, indent=2, allow_nan=False) + "\n"),
            (path, markdown(card)),
        ):
            with replacing(target) as draft:
                draft.write_text(content)
    except OSError as error:
        raise InputError(
            f"cannot write to {out} ({error.strerror}): choose another folder"
        ) from error
    return path


def describe(records: "Records", index: ChipIndex, partition: Partition, pixels: _Pixels) -> dict:
    """The numbers of the card, as JSON holds them; what is unknown is None."""
    metadata = records.metadata
    return {
        "dataset": records.name,
        "variant": records.variant,
        "version": records.version,
        "synthetic": records.synthetic,
        **{
            key: metadata[key]
            for key in ("harmonisation", "radiometry", "product", "labels", "season")
        },
        "chips": {name: len(ids) for name, ids in partition.items()},
        "classes": _classes(index, partition, pixels.codes, metadata["codes"]),
        "balance": _balance(index, partition),
        "fields": _field_sizes(pixels.fields),
        "speck_hectares": SPECK,
        "images": _images(index, metadata["season"]),
        "bands": _bands(index, pixels.histogram),
        "place": _place(index),
        "neighbours": _neighbours(index, partition),
    }


def connected_areas(
    code: UInt[np.ndarray, "h w"],
) -> tuple[Int[np.ndarray, " f"], Int[np.ndarray, " f"], Bool[np.ndarray, " f"]]:
    """Areas of one code, joined where pixels share a side.

    Gives of each the position of a pixel in the flattened map, its size in pixels and whether it
    touches the edge of the map.
    """
    number = np.arange(code.size).reshape(code.shape)
    across, down = code[:, 1:] == code[:, :-1], code[1:] == code[:-1]
    one = np.concatenate([number[:, 1:][across], number[1:][down]])
    other = np.concatenate([number[:, :-1][across], number[:-1][down]])
    links = coo_array((np.ones(len(one), bool), (one, other)), shape=(code.size, code.size))
    _, area = connected_components(links, directed=False)
    _, first, sizes = np.unique(area, return_index=True, return_counts=True)
    cut = np.zeros(len(sizes), bool)
    area = area.reshape(code.shape)
    for edge in (area[0], area[-1], area[:, 0], area[:, -1]):
        cut[edge] = True
    return first, sizes, cut


def _read_pixels(records: "Records", index: ChipIndex) -> _Pixels:
    histogram = np.zeros((len(records.bands), 1 << 16), np.int64)
    codes: Counter[int] = Counter()
    sources = {split: records.raw(split) for split in set(index.split.tolist())}
    parts = []
    hectares = index.pixel_hectares
    for row, (split, position) in enumerate(index.positions(index.chip_id)):
        record = sources[split][position]
        values = record["image"].reshape(-1, len(histogram))
        for of_band, band in zip(histogram, values[values.any(axis=1)].T, strict=True):
            of_band += np.bincount(band, minlength=len(of_band))  # noqa: PLW2901 -- in place
        found, counts = np.unique(record["code"], return_counts=True)
        codes.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        first, sizes, cut = connected_areas(record["code"])
        crop = record["label"].ravel()[first]
        known = crop != IGNORE
        columns = crop, sizes * hectares[row], cut
        parts.append([column[known] for column in columns])
    fields = Fields(*map(np.concatenate, zip(*parts, strict=True)))
    return _Pixels(fields, histogram, codes)


def _classes(
    index: ChipIndex, partition: Partition, codes: Mapping[int, int], table: Mapping[str, dict]
) -> dict:
    of_split = {name: index.counts[index.rows(ids)] for name, ids in partition.items()}
    found = {}
    for crop, name in enumerate(CLASS_NAMES):
        raw = Counter(
            {
                row["name"]: codes[int(code)]
                for code, row in table.items()
                if row["class"] == crop and codes.get(int(code))
            }
        )
        found[name] = {
            "pixels": {split: int(counts[:, crop].sum()) for split, counts in of_split.items()},
            "chips": {
                split: int((counts[:, crop] > 0).sum()) for split, counts in of_split.items()
            },
            "codes": dict(raw.most_common(3)),
        }
    return found


def _balance(index: ChipIndex, partition: Partition) -> dict:
    """How unequal the classes are, of labelled pixels; the effective number is exp(entropy)."""
    totals = {name: index.counts[index.rows(ids), 1:].sum(0) for name, ids in partition.items()}
    total = sum(totals.values())
    share = total / max(total.sum(), 1)
    present = share[share > 0]
    shares = {name: counts / max(counts.sum(), 1) for name, counts in totals.items()}
    largest = {
        name: {"class": CLASS_NAMES[1 + int(of_split.argmax())], "share": float(of_split.max())}
        for name, of_split in shares.items()
    }
    both = {"train", "test"} <= shares.keys()
    return {
        "labelled": float(index.counts[:, 1:].sum() / index.counts.sum()),
        "labelled_pixels": int(total.sum()),
        "largest": largest,
        "ratio": float(present.max() / present.min()) if present.size else None,
        "effective_classes": float(np.exp(-(present * np.log(present)).sum())),
        "train_to_test": float(abs(shares["train"] - shares["test"]).sum() / 2) if both else None,
    }


def _field_sizes(fields: Fields) -> dict:
    """Sizes in hectares of the fields that no edge cuts and that are no specks, by class."""
    groups = {name: fields.crop == crop for crop, name in enumerate(CLASS_NAMES) if crop != IGNORE}
    groups["all"] = np.ones(len(fields.crop), bool)
    found = {}
    for name, among in groups.items():
        if not among.any():
            continue
        specks = among & (fields.hectares < SPECK)
        cut = among & ~specks & fields.cut
        whole = np.sort(fields.hectares[among & ~specks & ~cut])
        p10, median, p90 = np.percentile(whole, (10, 50, 90)).tolist() if whole.size else [None] * 3
        middle = np.searchsorted(whole.cumsum(), whole.sum() / 2)
        found[name] = {
            "whole": len(whole),
            "cut": int(cut.sum()),
            "specks": int(specks.sum()),
            "cut_area": float(fields.hectares[cut].sum() / fields.hectares[among].sum()),
            "speck_area": float(fields.hectares[specks].sum() / fields.hectares[among].sum()),
            "p10": p10,
            "median": median,
            "p90": p90,
            "half_area_below": float(whole[middle]) if whole.size else None,
        }
    return found


def _images(index: ChipIndex, season: Sequence[str] | None) -> dict:
    """When the images were taken and how clean they are; each date of each chip is one image.

    Those in the winter of their hemisphere are counted where it is not the season.
    """
    days = [(day, lat) for dates, lat in zip(index.dates, index.lat, strict=True) for day in dates]
    offsets = Counter(
        f"{offset} ({source})"
        for of_chip, sources in zip(index.offset, index.offset_source, strict=True)
        for offset, source in zip(of_chip, sources, strict=True)
    )
    months = Counter(int(day[5:7]) for day, _ in days)
    outside = [(day, lat) for day, lat in days if not season or not _in_season(day, season)]
    return {
        "count": len(days),
        "first": min(days)[0],
        "last": max(days)[0],
        "dates_per_chip": [f(map(len, index.dates)) for f in (min, max)],
        "by_month": {str(month): months[month] for month in sorted(months)},
        "outside_season": len(outside) if season else None,
        "in_winter": sum(_in_winter(day, lat) for day, lat in outside),
        "cloudy": _mean(index.cloudy),
        "nodata": _mean(index.nodata),
        "offsets": dict(offsets.most_common()),
    }


def _in_season(day: str, season: Sequence[str]) -> bool:
    """Whether YYYY-MM-DD lies in the months and days of a season, which may span the new year."""
    start, end = season
    if start <= end:
        return start <= day[5:] <= end
    return not end < day[5:] < start


def _in_winter(day: str, lat: float) -> bool:
    return day[5:7] in (("12", "01", "02") if lat > 0 else ("06", "07", "08"))


def _mean(of_dates: Sequence[Sequence[float]]) -> float | None:
    values = np.concatenate(of_dates)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def _bands(index: ChipIndex, histogram: Int64[np.ndarray, "b 65536"]) -> dict:
    mean, std = index.mean_and_std()
    cumulative = histogram.cumsum(axis=1)
    found = {}
    for band, name in enumerate(index.bands):
        ranks = np.ceil(np.array([0.02, 0.5, 0.98]) * cumulative[band, -1]).clip(1)
        p2, median, p98 = np.searchsorted(cumulative[band], ranks).tolist()
        found[name] = {
            "mean": float(mean[band]),
            "std": float(std[band]),
            "p2": p2,
            "median": median,
            "p98": p98,
        }
    return found


def _place(index: ChipIndex) -> dict:
    metres = np.sqrt(index.pixel_hectares * 1e4)
    labelled = (index.counts[:, 1:].sum(axis=1) * index.pixel_hectares).sum()
    return {
        "lon": [float(index.lon.min()), float(index.lon.max())],
        "lat": [float(index.lat.min()), float(index.lat.max())],
        "km2": float(index.ground.prod(axis=1).sum() / 1e6),
        "labelled_km2": float(labelled / 100),
        "pixel_metres": [float(metres.min()), float(metres.max())],
        "projections": sorted(set(index.crs.tolist())),
    }


def _neighbours(index: ChipIndex, partition: Partition) -> dict:
    found = adjacency(index, partition)
    known = np.isfinite(found.distance_km)
    return {"test_chips": found.chips, "distance_km": found.distance_km if known else None}
