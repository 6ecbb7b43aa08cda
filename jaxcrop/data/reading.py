"""Records to batches on the host: chips of the wanted bands, in an order fixed by the seed."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple
from zlib import crc32

import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from jaxtyping import Float, Float64, UInt8, UInt16, UInt32

from jaxcrop.allocator import keep_freed_memory
from jaxcrop.crops import IGNORE
from jaxcrop.data.bands import BandInput
from jaxcrop.data.decoding import Decoder
from jaxcrop.data.sampling import Sampling
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
    """Chips stacked for the device; padding chips are all-ignored.

    `number` is the CRC-32 of each chip's id, which stands for the id on the device. In place of
    the images there may be what a frozen backbone makes of them: its maps, finest first.
    """

    image: UInt16[np.ndarray, "n *t h w b"] | tuple[Float[np.ndarray, "n _h _w _c"], ...]
    label: UInt8[np.ndarray, "n h w"]
    number: UInt32[np.ndarray, " n"]


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
        positions: Sequence[tuple[str, int]],
        band_input: BandInput,
        dates: LeastCloudy | InMonths = LeastCloudy(),
    ) -> Sequence[Chip]:
        """The chips that stand there, each in a split and at a position of it, as `chips` gives."""
        sources = {split: self.raw(split) for split in {split for split, _ in positions}}
        return self._chips(_Picked(sources, positions), band_input, dates)

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
class _Picked:
    """Records of several splits as one sequence."""

    sources: Mapping[str, Sequence[dict]]
    positions: Sequence[tuple[str, int]]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> dict:
        split, position = self.positions[index]
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


class Spares:
    """Images of batches that are done with, for others to be read into.

    To write where no program has written takes the system longer than to read the chips.
    """

    def __init__(self):
        self._images = SimpleQueue()

    def give(self, image: UInt16[np.ndarray, "n *t h w b"]) -> None:
        """Let another batch be read into this array."""
        self._images.put(image)

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> UInt16[np.ndarray, "n *t h w b"]:
        """An array given, or a new one: whatever it holds."""
        with suppress(Empty):
            image = self._images.get_nowait()
            if image.shape == shape and image.dtype == dtype:
                return image
        return np.empty(shape, dtype)


def training_batches(
    chips: Sequence[Chip],
    sampling: Sampling,
    steps: range,
    *,
    rows: Callable[[int], slice] = lambda chips: slice(None),
    workers: int = 0,
    spares: Spares | None = None,
) -> Iterator[Batch]:
    """Yield the training batches of `steps`, counted from 0, as `sampling` composes them.

    `rows` names, for a batch of so many chips, those that this process reads. They are read ahead,
    into `spares`, or by as many other processes as `workers` says; the batches are the same.
    """
    keep_freed_memory()

    def batch(step: int) -> Batch:
        chosen = sampling.batch(step)
        return stacked(chips, chosen[rows(len(chosen))].tolist(), spares=spares)[1]

    first = chips[0]
    ahead = _READ_AHEAD // (sampling.batch_size * (first.image.nbytes + first.label.nbytes))
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=min(16, max(2, ahead)))
    batches = grain.MapDataset.source(steps).map(batch).to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():  # grain asks for some, whether absl runs the program or not
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(batches)


def stacked(
    chips: Sequence[Chip],
    positions: Sequence[int],
    size: int | None = None,
    *,
    spares: Spares | None = None,
) -> tuple[tuple[str, ...], Batch]:
    """The chips at these positions as a batch, and their ids; all-ignored ones fill it to `size`.

    Threads read them, each straight into the batch, which is one of `spares` if there are any.
    """
    first, size = chips[positions[0]], len(positions) if size is None else size
    image = (spares or Spares()).take((size, *first.image.shape), first.image.dtype)
    label = np.zeros((size, *first.label.shape), first.label.dtype)
    number = np.zeros(size, np.uint32)
    image[len(positions) :] = 0

    def put(row: int) -> str:
        chip = chips[positions[row]] if row else first
        image[row], label[row] = chip.image, chip.label
        number[row] = crc32(chip.chip_id.encode())
        return chip.chip_id

    ids = tuple(_readers().map(put, range(len(positions))))
    return ids, Batch(image, label, number)


@cache
def _readers() -> ThreadPoolExecutor:
    """The threads of this process that read chips: more than one, since disks make them wait."""
    return ThreadPoolExecutor(min(16, max(4, os.cpu_count() or 1)), "chips")


def evaluation_batches(
    chips: Sequence[Chip], batch_size: int
) -> Iterator[tuple[tuple[str, ...], Batch]]:
    """Every chip once, in order, with its id; all-ignored chips fill up the last batch."""
    for start in range(0, len(chips), batch_size):
        yield stacked(chips, range(start, min(start + batch_size, len(chips))), batch_size)


_READ_AHEAD = 1 << 27
"""Bytes of batches that are read ahead, at most sixteen batches and at least two."""
