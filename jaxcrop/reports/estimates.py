"""Scores with their uncertainty over seeds and over places."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64

from jaxcrop.reports.groups import Group
from jaxcrop.statistics.blocks import block_ids
from jaxcrop.statistics.bootstrap import DRAWS, Interval, interval, resample, run_draws
from jaxcrop.sweeps.cells import CellResult
from jaxcrop.training.metrics import metrics, per_class

CLASS_SCORES = ("recall", "precision", "f1", "jaccard")


@dataclass(frozen=True)
class Estimate:
    """The scores of a group.

    `seeds` holds each metric's value for each seed, `draws` its mean over seeds in each draw of the
    bootstrap, NaN where the region has too few blocks. Groups of a region share the blocks of a
    draw, and groups of equally many seeds how seeds move it (`bootstrap.run_draws`): subtracting
    the draws of two groups pairs them. `classes` holds value, low and high of each class.
    """

    seeds: dict[str, Float[np.ndarray, " seeds"]]
    draws: dict[str, Float[np.ndarray, " draws"]]
    classes: dict[str, Float[np.ndarray, "3 k"]]

    def value(self, metric: str) -> float:
        """The mean over seeds."""
        return float(self.seeds[metric].mean())

    def interval(self, metric: str) -> Interval:
        """The mean over seeds between its limits, which lie within the metric's range."""
        least = -1.0 if metric == "kappa" else 0.0
        return _within(interval(self.value(metric), self.draws[metric]), least)


def estimated(groups: Sequence[Group]) -> list[Estimate]:
    """The scores of each group; the chips of a region are drawn by blocks, the same for all."""
    found: dict[int, Estimate] = {}
    for index, region in enumerate(dict.fromkeys(group.region for group in groups)):
        members = [(number, g) for number, g in enumerate(groups) if g.region == region]
        chips = chip_blocks(result for _, group in members for result in group.results)
        for number, group in members:
            # Regions are drawn apart, so that means over regions have the right spread.
            found[number] = _estimate(group, chips, seed=index)
    return [found[number] for number in range(len(groups))]


def chip_blocks(results: Iterable[CellResult]) -> dict[str, int]:
    """The block of the ground of each chip of a region; each seed may have chips of its own."""
    place = {}
    for result in results:
        place.update(zip(result.chip_ids, zip(result.lon, result.lat, strict=True), strict=True))
    lon, lat = np.array(list(place.values())).T
    return dict(zip(place, block_ids(lon, lat).tolist(), strict=True))


def matrices(
    group: Group, chips: dict[str, int]
) -> tuple[Int64[np.ndarray, "seeds n k k"], Int[np.ndarray, " n"]]:
    """The confusion matrices of all seeds on the chips that any of them has, and their blocks."""
    ids = dict.fromkeys(chip for result in group.results for chip in result.chip_ids)
    row = {chip: number for number, chip in enumerate(ids)}
    size = group.results[0].per_chip.shape[-1]
    aligned = np.zeros((len(group.results), len(row), size, size), np.int64)
    for of_seed, result in zip(aligned, group.results, strict=True):
        of_seed[[row[chip] for chip in result.chip_ids]] = result.per_chip
    return aligned, np.array([chips[chip] for chip in ids])


def _estimate(group: Group, chips: dict[str, int], seed: int) -> Estimate:
    per_chip, blocks = matrices(group, chips)
    total = per_chip.sum(axis=1)
    drawn = resample(per_chip, blocks, seed=seed)

    def over_seeds(values: np.ndarray, of_draws: np.ndarray) -> np.ndarray:
        if not len(of_draws):
            return np.full((DRAWS, *values.shape[:-1]), np.nan)
        return run_draws(values, of_draws, seed=seed)

    seeds, of_draws = metrics(total), metrics(drawn)
    means = over_seeds(np.stack(list(seeds.values())), np.stack(list(of_draws.values()), axis=1))
    class_values, class_draws = (
        np.stack([per_class(matrix)[name] for name in CLASS_SCORES], axis=-2)
        for matrix in (total, drawn)
    )
    class_values = np.moveaxis(class_values, 0, -1)  # scores, classes, seeds
    class_means = over_seeds(class_values, np.moveaxis(class_draws, 1, -1))
    classes = {}
    for number, name in enumerate(CLASS_SCORES):
        ends = [
            _within(interval(float(value), draws))
            for value, draws in zip(
                class_values[number].mean(axis=-1), class_means[:, number].T, strict=True
            )
        ]
        classes[name] = np.array(ends).T
    return Estimate(seeds, dict(zip(seeds, means.T, strict=True)), classes)


def _within(of: Interval, least: float = 0.0) -> Interval:
    return Interval(of.value, max(of.low, least), min(of.high, 1.0))
