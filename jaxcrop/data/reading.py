"""Records to batches on the host: chips of the wanted bands, in an order fixed by the seed."""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from jaxtyping import Float, Float64, UInt8, UInt16

from jaxcrop.crops import IGNORE
from jaxcrop.data.bands import BandInput
from jaxcrop.data.decoding import Decoder
from jaxcrop.data.stored import StoredRecords
from jaxcrop.errors import InputError


class Chip(NamedTuple):
    """One labelled chip: digital numbers of the wanted bands, harmonised classes.

    Of several dates the image has a time axis, of one none.
    """

    chip_id: str
    image: UInt16[np.ndarray, "*t h w b"]
    label: UInt8[np.ndarray, "h w"]
    crs: str
    transform: Float64[np.ndarray, "6"]


class Batch(NamedTuple):
    """Chips stacked for the device; padding chips are all-ignored."""

    image: UInt16[np.ndarray, "n *t h w b"]
    label: UInt8[np.ndarray, "n h w"]


@dataclass(frozen=True)
class LeastCloudy:
    """Chooses the `count` dates of a chip with the fewest cloudy and missing pixels, in order.

    A chip of fewer dates repeats its best one, which a maximum over time does not see.
    """

    count: int = 1

    def __call__(self, record: dict) -> list[int]:
        if len(record["dates"]) == 1:
            return [0] * self.count
        order = np.argsort(_unusable(record), kind="stable")
        chosen = list(order[: self.count]) + [order[0]] * (self.count - len(order))
        return sorted(map(int, chosen))


@dataclass(frozen=True)
class InMonths:
    """Chooses for each month (1-12) of `months` the least cloudy date of a chip.

    Raises InputError, naming the chip, where a month has none.
    """

    months: tuple[int, ...]

    def __call__(self, record: dict) -> list[int]:
        unusable = _unusable(record)
        of_date = np.array([int(day[5:7]) for day in record["dates"]])
        chosen = []
        for month in self.months:
            (dates,) = np.nonzero(of_date == month)
            if not dates.size:
                raise InputError(
                    f"chip {record['chip_id'].decode()} has no date in month {month}: choose "
                    f"among {', '.join(map(str, sorted(set(of_date.tolist()))))}"
                )
            chosen.append(int(dates[unusable[dates].argmin()]))
        return chosen


def _unusable(record: dict) -> Float[np.ndarray, " t"]:
    return np.nan_to_num(record["cloudy"]) + np.nan_to_num(record["nodata"])


@dataclass(frozen=True)
class Records:
    """The built records of one dataset, found below a data folder; nothing is read until asked.

    `metadata` says what they hold: bands, codes, variant, pixels of each class in each split.
    """

    folder: Path
    name: str
    variant: str
    version: str
    metadata: dict
    sizes: dict[str, int]

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands of every image, in their order."""
        return tuple(self.metadata["bands"])

    @property
    def synthetic(self) -> bool:
        """Whether any chip was drawn, not measured."""
        return bool(self.metadata["synthetic"])

    def classes(self, split: str) -> tuple[int, ...]:
        """The harmonised classes that occur in the labels of `split`, in ascending order."""
        pixels = self.metadata["pixels"][split]
        return tuple(crop for crop, count in enumerate(pixels) if count and crop != IGNORE)

    def raw(self, split: str) -> Sequence[dict]:
        """Random access to the records of `split` as they are stored.

        `split` may be cut as TFDS cuts it, "train[:100]": the stored order is a random one, so
        10 are among 100 and 100 among 900. Raises InputError where the split is missing.
        """
        if not self.sizes.get(split.partition("[")[0]):
            raise InputError(
                f"{self.folder} has no chips in split {split} (it has {self.sizes}): "
                "build the records again from more chips"
            )
        info = tfds.builder_from_directory(self.folder).info
        try:
            stored = StoredRecords.of(info, split)
        except ValueError as error:
            raise InputError(f"{self.folder} has no chips {split}: {error}") from error
        return _Decoded(stored, Decoder.of(info.features))

    def chips(
        self,
        split: str,
        band_input: BandInput,
        dates: LeastCloudy | InMonths = LeastCloudy(),
    ) -> Sequence[Chip]:
        """Random access to the chips of `split`, each with the bands that `band_input` names.

        `dates` chooses among several. Raises InputError where a band or the split is missing.
        """
        return self._chips(self.raw(split), band_input, dates)

    def chips_at(
        self,
        places: Sequence[tuple[str, int]],
        band_input: BandInput,
        dates: LeastCloudy | InMonths = LeastCloudy(),
    ) -> Sequence[Chip]:
        """The chips at these places, each a split and a position in it, as `chips` gives them."""
        return self._chips(_Places({s: self.raw(s) for s, _ in places}, places), band_input, dates)

    def _chips(self, source, band_input: BandInput, dates: LeastCloudy | InMonths):
        indices = list(band_input.indices(self.bands, str(self.folder)))
        in_order = indices == list(range(len(self.bands)))

        def chip(record: dict) -> Chip:
            chosen = dates(record)
            image = record["image"]
            image = image[chosen[0]] if len(chosen) == 1 else image[chosen]
            return Chip(
                chip_id=record["chip_id"].decode(),
                image=image if in_order else image[..., indices],
                label=record["label"],
                crs=record["crs"].decode(),
                transform=record["transform"],
            )

        return grain.MapDataset.source(source).map(chip)


@dataclass(frozen=True)
class _Decoded:
    """Stored records as arrays."""

    stored: StoredRecords
    decoder: Decoder

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> dict:
        return self.decoder(self.stored[index])

    def __iter__(self) -> Iterator[dict]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class _Places:
    """Records of several splits as one sequence."""

    sources: Mapping[str, Sequence[dict]]
    places: Sequence[tuple[str, int]]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict:
        split, position = self.places[index]
        return self.sources[split][position]


def find_records(data_dir: Path, dataset: str, variant: str = "standard") -> Records | None:
    """The newest version of `dataset` built below `data_dir`, or None where there is none."""
    folders = [path.parent for path in (data_dir / dataset / variant).glob("*/dataset_info.json")]
    return open_records(max(folders, key=_version)) if folders else None


def _version(folder: Path) -> tfds.core.Version:
    return tfds.core.Version(folder.name)


def open_records(folder: Path) -> Records:
    """The records in `folder`, one version of a dataset. Raises InputError where there are none."""
    if not (folder / "dataset_info.json").is_file():
        raise InputError(
            f"{folder} holds no records: build them with `python -m jaxcrop.data build`"
        )
    info = tfds.builder_from_directory(folder).info
    return Records(
        folder=folder,
        name=info.name,
        variant=info.config_name,
        version=str(info.version),
        metadata=dict(info.metadata),
        sizes={name: split.num_examples for name, split in info.splits.items()},
    )


def training_batches(
    chips: Sequence[Chip],
    batch_size: int,
    seed: int,
    *,
    start: int = 0,
    process: int = 0,
    processes: int = 1,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield this process's share of the endless sequence of training batches, from step `start` on.

    Every pass over the chips has an order of its own; batches run on across passes, so all have
    the same size. Batch k depends on the seed and on k alone: a run that resumes at step k goes on
    with the batch it would have seen, and n processes together see what one alone would see. So the
    position in the data is the step, and needs no checkpoint of its own. Threads read ahead, or as
    many processes as `workers` says; the batches are the same.
    """
    _keep_freed_memory()
    samples = chips.seed(seed).shuffle().repeat()[process::processes].map(_arrays)
    # Dropping the remainder drops nothing of an endless sequence; without, grain rounds its length
    # in floating point, beyond what an index can hold at a batch size of 1.
    batches = samples.batch(batch_size // processes, drop_remainder=True)[start:]
    ahead = batches.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=16))
    if workers:
        if not flags.FLAGS.is_parsed():  # grain asks for some, whether absl runs the program or not
            flags.FLAGS.mark_as_parsed()
        ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(ahead)


def evaluation_batches(
    chips: Sequence[Chip], batch_size: int
) -> Iterator[tuple[tuple[str, ...], Batch]]:
    """Every chip once, in order, with its id; all-ignored chips fill up the last batch."""
    for start in range(0, len(chips), batch_size):
        group = [chips[i] for i in range(start, min(start + batch_size, len(chips)))]
        padding = [np.zeros_like(group[0].image)] * (batch_size - len(group))
        image = np.stack([chip.image for chip in group] + padding)
        ignored = [np.zeros_like(group[0].label)] * (batch_size - len(group))
        label = np.stack([chip.label for chip in group] + ignored)
        yield tuple(chip.chip_id for chip in group), Batch(image, label)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


@cache
def _keep_freed_memory() -> None:
    """Have glibc keep blocks up to 32 MB that are freed, for the next chips and batches.

    It gives them back to the kernel otherwise, and touching the pages of a new block for the first
    time takes as long as reading the chip.
    """
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def _arrays(chip: Chip) -> Batch:
    return Batch(chip.image, chip.label)
