"""Records to batches on the host: chips of the wanted bands, in an order fixed by the seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float64, UInt8, UInt16

from jaxcrop.crops import IGNORE, NUM_CLASSES
from jaxcrop.data.bands import BandInput
from jaxcrop.errors import InputError


class Chip(NamedTuple):
    """One labelled chip of one date: digital numbers of the wanted bands, harmonised classes."""

    chip_id: str
    image: UInt16[np.ndarray, "h w b"]
    label: UInt8[np.ndarray, "h w"]
    crs: str
    transform: Float64[np.ndarray, "6"]


class Batch(NamedTuple):
    """Chips stacked for the device; padding chips are all-ignored."""

    image: UInt16[np.ndarray, "n h w b"]
    label: UInt8[np.ndarray, "n h w"]


@dataclass(frozen=True)
class Records:
    """The built records of one dataset, found below a data folder; nothing is read until asked."""

    folder: Path
    name: str
    version: str
    bands: tuple[str, ...]
    synthetic: bool
    sizes: dict[str, int]

    def classes(self, split: str) -> tuple[int, ...]:
        """The harmonised classes that occur in the labels of `split`, in ascending order."""
        found = np.zeros(NUM_CLASSES, bool)
        for record in _builder(self.folder).as_data_source(split):
            found[np.unique(record["label"])] = True
        found[IGNORE] = False
        return tuple(np.flatnonzero(found).tolist())

    def chips(self, split: str, band_input: BandInput) -> Sequence[Chip]:
        """Random access to the chips of `split`, each with the bands that `band_input` names.

        Of a series the first date is taken. Raises InputError where a band or the split is missing.
        """
        if not self.sizes.get(split):
            raise InputError(
                f"{self.folder} has no chips in split {split} (it has {self.sizes}): "
                "build the records again from more chips"
            )
        indices = list(band_input.indices(self.bands, str(self.folder)))
        source = _builder(self.folder).as_data_source(split)

        def chip(record: dict) -> Chip:
            series = record["image"]
            return Chip(
                chip_id=record["chip_id"].decode(),
                image=np.take(series[0], indices, axis=-1),
                label=record["label"],
                crs=record["crs"].decode(),
                transform=record["transform"],
            )

        return grain.MapDataset.source(source).map(chip)


def _builder(folder: Path) -> tfds.core.DatasetBuilder:
    return tfds.builder_from_directory(folder)


def find_records(data_dir: Path, dataset: str) -> Records | None:
    """The newest version of `dataset` built below `data_dir`, or None where there is none."""
    folders = [path.parent for path in (data_dir / dataset).glob("*/dataset_info.json")]
    return open_records(max(folders, key=_version)) if folders else None


def _version(folder: Path) -> tfds.core.Version:
    return tfds.core.Version(folder.name)


def open_records(folder: Path) -> Records:
    """The records in `folder`, one version of a dataset. Raises InputError where there are none."""
    if not (folder / "dataset_info.json").is_file():
        raise InputError(
            f"{folder} holds no records: build them with `python -m jaxcrop.data build`"
        )
    info = _builder(folder).info
    return Records(
        folder=folder,
        name=info.name,
        version=str(info.version),
        bands=tuple(info.metadata["bands"]),
        synthetic=bool(info.metadata["synthetic"]),
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
) -> Iterator[Batch]:
    """Yield this process's share of the endless sequence of training batches, from step `start` on.

    Every pass over the chips has an order of its own; batches run on across passes, so all have
    the same size. Batch k depends on the seed and on k alone: a run that resumes at step k goes on
    with the batch it would have seen, and n processes together see what one alone would see.
    """
    samples = chips.seed(seed).shuffle().repeat()[process::processes].map(_arrays)
    # Dropping the remainder drops nothing of an endless sequence; without, grain rounds its length
    # in floating point, beyond what an index can hold at a batch size of 1.
    batches = samples.batch(batch_size // processes, drop_remainder=True)[start:]
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)))


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


def _arrays(chip: Chip) -> Batch:
    return Batch(chip.image, chip.label)
