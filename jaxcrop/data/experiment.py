"""Which chips of which regions an experiment trains, validates and tests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import grain
import numpy as np
from jaxtyping import Int64

from jaxcrop.crops import IGNORE
from jaxcrop.data import splits
from jaxcrop.data.bands import BandInput
from jaxcrop.data.index import ChipIndex, index_of
from jaxcrop.data.reading import Chip, Records
from jaxcrop.errors import InputError

Setting = Literal["id", "ood", "ood+id"]
"""Trained on the region that is tested (in distribution), on others (out of it), or on both."""

ChipRef = tuple[str, str]
"""Region and id of a chip."""


@dataclass(frozen=True)
class Experiment:
    """The chips of an experiment: `ids` by split and region, of these `records`."""

    records: Mapping[str, Records]
    indices: Mapping[str, ChipIndex]
    ids: Mapping[str, Mapping[str, tuple[str, ...]]]

    def chips(self, split: str, band_input: BandInput) -> Sequence[Chip]:
        """Random access to the chips of a split, region after region, as `Records.chips` gives.

        Raises InputError where a region's records lack a band.
        """
        parts = [
            self.records[region].chips_at(self.indices[region].positions(ids), band_input)
            for region, ids in self.ids[split].items()
        ]
        return parts[0] if len(parts) == 1 else grain.MapDataset.concatenate(parts)

    def refs(self, split: str) -> list[ChipRef]:
        """The regions and ids of those chips, in the same order."""
        return [(region, i) for region, ids in self.ids[split].items() for i in ids]

    @property
    def sizes(self) -> dict[str, dict[str, int]]:
        """How many chips of each region there are in each split."""
        return {
            split: {region: len(ids) for region, ids in of_split.items()}
            for split, of_split in self.ids.items()
        }

    @property
    def pixels(self) -> Int64[np.ndarray, " classes"]:
        """How many pixels of each harmonised class the training labels have."""
        return np.sum(
            [
                self.indices[region].counts[self.indices[region].rows(ids)].sum(axis=0)
                for region, ids in self.ids["train"].items()
            ],
            axis=0,
        )

    @property
    def classes(self) -> tuple[int, ...]:
        """The harmonised classes that occur in the training labels, in ascending order."""
        pixels = self.pixels.tolist()
        return tuple(crop for crop, count in enumerate(pixels) if count and crop != IGNORE)

    @property
    def digest(self) -> str:
        """A hash of the chips of every split: two experiments of the same digest see the same."""
        lines = (
            f"{split} {region} {chip_id}"
            for split, of_split in self.ids.items()
            for region, ids in of_split.items()
            for chip_id in ids
        )
        return sha256("\n".join(lines).encode()).hexdigest()


def plan(
    records: Mapping[str, Records],
    target: str,
    *,
    setting: Setting = "id",
    others: Literal["train", "all", "balanced"] = "train",
    budget: int | None = None,
    listed: bool = False,
    by: str = "built",
    seed: int = 0,
) -> Experiment:
    """The experiment that is tested on the region `target`.

    `records` are those of each region that takes part. Each is split as it was `built`, anew at
    `random` or into `blocked` groups of neighbours, or as the lists in the folder `by` say: for
    every `seed` alike, so that all are tested on the same chips. `budget` labelled chips of the
    target, 10 % of which validate, are drawn by the seed, as part of its larger budgets, or
    `listed` by the paper; None is all of its training chips. Of the other regions the training
    chips train, or all, or a `balanced` part of them. Raises InputError where this cannot be had.
    """
    indices = {region: index_of(of_region) for region, of_region in records.items()}
    partitions = {region: splits.divided(index, by) for region, index in indices.items()}
    labelled = None
    if budget is not None and setting != "ood":
        if budget < 2:
            raise InputError(
                f"a budget of {budget} chips leaves none to validate on: ask for 2 at least, or "
                "for setting ood to do without"
            )
        if listed:
            labelled = splits.paper_list(indices[target], Path(by), budget)
        else:
            pool = partitions[target]["train"]
            labelled = splits.budget(indices[target], pool, budget, seed)
    every = "all" if others == "all" else "train"
    mixed = splits.mixture(partitions, target, setting, labelled, others=every, seed=seed)
    if others == "balanced" and setting != "id":
        own = {region: ids for region, ids in mixed["train"].items() if region == target}
        rest = {region: ids for region, ids in mixed["train"].items() if region != target}
        even = splits.balanced(indices, rest)
        mixed["train"] = {r: (own | even)[r] for r in mixed["train"]}
    return Experiment(records, indices, mixed)
