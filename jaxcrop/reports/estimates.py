"""Scores with their uncertainty over seeds and over places."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64

from jaxcrop.reports.groups import Group
from jaxcrop.statistics.blocks import block_ids
from jaxcrop.sweeps.cells import CellResult
from jaxcrop.training.metrics import metrics, per_class

DRAWS = 1000
BLOCK_KM = 20.0
LEVEL = 0.95
CLASS_SCORES = ("recall", "precision", "f1", "jaccard")


@dataclass(frozen=True)
class Estimate:
    """The scores of a group, each an array over metrics or classes by its name.

    `seeds` holds a metric's value for each seed and `draws` its mean over seeds in each draw of the
    bootstrap. In a draw the groups of a region have the same blocks of chips, and groups of equally
    many seeds the same seeds: subtracting the draws of two groups pairs them.
    """

    seeds: dict[str, Float[np.ndarray, " seeds"]]
    draws: dict[str, Float[np.ndarray, " draws"]]
    classes: dict[str, Float[np.ndarray, "3 k"]]
    blocks: int

    def value(self, metric: str) -> float:
        """The mean over seeds."""
        return float(self.seeds[metric].mean())

    def interval(self, metric: str) -> tuple[float, float]:
        """The bootstrap's percentile interval of the mean over seeds."""
        return interval(self.draws[metric])


def interval(draws: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    """The central LEVEL of draws; NaN where none of them is a number."""
    drawn = draws[~np.isnan(draws)]
    if not len(drawn):
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def estimated(groups: Sequence[Group]) -> list[Estimate]:
    """The scores of each group.

    A draw takes as many blocks of chips as the region has, with replacement, and as many seeds as
    the group has (a bootstrap of two crossed factors, Owen 2007, doi 10.1214/07-AOAS122). Chips of
    one block lie within BLOCK_KM of each other.
    """
    found: dict[int, Estimate] = {}
    for index, region in enumerate(dict.fromkeys(group.region for group in groups)):
        members = [(number, g) for number, g in enumerate(groups) if g.region == region]
        block_of = _blocks(result for _, group in members for result in group.results)
        count = 1 + max(block_of.values())
        random = np.random.default_rng(index)  # regions are drawn apart: their means are averaged
        taken = random.multinomial(count, np.full(count, 1 / count), DRAWS)
        picked = {
            seeds: random.integers(seeds, size=(DRAWS, seeds))
            for seeds in sorted({len(group.results) for _, group in members})
        }
        for number, group in members:
            found[number] = _estimate(group, block_of, taken, picked[len(group.results)])
    return [found[number] for number in range(len(groups))]


def _blocks(results: Iterable[CellResult]) -> dict[str, int]:
    """The block of each chip of a region, numbered from 0; seeds may have chips of their own."""
    place = {}
    for result in results:
        place.update(zip(result.chip_ids, zip(result.lon, result.lat, strict=True), strict=True))
    lon, lat = np.array(list(place.values())).T
    _, numbers = np.unique(block_ids(lon, lat, km=BLOCK_KM), return_inverse=True)
    return dict(zip(place, numbers.tolist(), strict=True))


def _estimate(
    group: Group,
    block_of: dict[str, int],
    taken: Int[np.ndarray, "draws blocks"],
    picked: Int[np.ndarray, "draws seeds"],
) -> Estimate:
    draws, count = taken.shape
    per_block = np.stack([_per_block(result, block_of, count) for result in group.results])
    seeds, _, k, _ = per_block.shape
    drawn = np.einsum("db,sbc->dsc", taken, per_block.reshape(seeds, count, k * k))
    drawn = drawn.reshape(draws, seeds, k, k)
    total = group.confusions

    def over_seeds(scores: np.ndarray) -> np.ndarray:
        index = picked.reshape(picked.shape + (1,) * (scores.ndim - 2))
        return np.take_along_axis(scores, index, axis=1).mean(axis=1)

    values, of_class = per_class(total), per_class(drawn)
    classes = {
        name: np.stack(
            [
                values[name].mean(axis=0),
                *np.quantile(
                    over_seeds(of_class[name]), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0
                ),
            ]
        )
        for name in CLASS_SCORES
    }
    return Estimate(
        seeds=metrics(total),
        draws={name: over_seeds(scores) for name, scores in metrics(drawn).items()},
        classes=classes,
        blocks=count,
    )


def _per_block(
    result: CellResult, block_of: dict[str, int], count: int
) -> Int64[np.ndarray, "blocks k k"]:
    summed = np.zeros((count, *result.per_chip.shape[1:]), np.int64)
    np.add.at(summed, [block_of[chip] for chip in result.chip_ids], result.per_chip)
    return summed
