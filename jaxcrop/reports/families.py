"""The study's families compared: differences with their tests, and how firm their order is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxcrop.reports.estimates import Estimate
from jaxcrop.reports.groups import Scenario
from jaxcrop.reports.study import Study
from jaxcrop.statistics.bootstrap import Interval, interval
from jaxcrop.statistics.comparisons import (
    TEST_DRAWS,
    Friedman,
    friedman,
    holm,
    p_value_of_zero,
)
from jaxcrop.statistics.ranks import RankStability, kendall_tau, rank_stability

COMPARED = (
    "overall_accuracy", "average_accuracy", "present_accuracy", "present_f1", "present_jaccard"
)  # fmt: skip
"""The metrics that families are compared by."""


@dataclass(frozen=True)
class Pair:
    """Two families' difference in a scenario, the mean over regions, and in each region.

    `p_value` is two-sided and corrected by Holm over all pairs and scenarios of the metric.
    """

    metric: str
    scenario: Scenario
    first: str
    second: str
    difference: Interval
    p_value: float
    regions: dict[str, float]


@dataclass(frozen=True)
class Rank:
    """The order of the families in a scenario.

    `stability` is over regions and the bootstrap's draws of seeds and blocks, `over_regions`
    Friedman's test of their mean scores, None with one region; `agreement` is Kendall's tau with
    the order at the study's last scenario in distribution.
    """

    metric: str
    scenario: Scenario
    stability: RankStability
    over_regions: Friedman | None
    agreement: float


class Comparison(NamedTuple):
    """The families of a study compared; `lineup` names the models that stand for them."""

    lineup: tuple[str, ...]
    pairs: tuple[Pair, ...]
    ranks: tuple[Rank, ...]


def compare(study: Study) -> Comparison:
    """Compare families where at least two have the same regions and scenario."""
    lineup = tuple(model.name for model in study.representatives)
    if len(lineup) < 2:
        return Comparison(lineup, (), ())
    return Comparison(lineup, tuple(_pairs(study, lineup)), tuple(_ranks(study, lineup)))


def _pairs(study: Study, lineup: tuple[str, ...]) -> Iterator[Pair]:
    for metric in COMPARED:
        found = []
        for scenario in study.scenarios:
            for first, second in combinations(lineup, 2):
                both = _complete(study, (first, second), scenario)
                if both:
                    found.append((scenario, first, second, both))
        drawn = [
            mean_draws([a.draws[metric] - b.draws[metric] for a, b in both.values()])
            for *_, both in found
        ]
        corrected = holm(np.array([p_value_of_zero(draws) for draws in drawn]))
        for (scenario, first, second, both), draws, p_value in zip(
            found, drawn, corrected, strict=True
        ):
            of = {region: a.value(metric) - b.value(metric) for region, (a, b) in both.items()}
            difference = interval(float(np.mean(list(of.values()))), draws)
            yield Pair(metric, scenario, first, second, difference, float(p_value), of)


def mean_draws(regions: Sequence[Float[np.ndarray, " draws"]]) -> Float[np.ndarray, " tests"]:
    """TEST_DRAWS draws of the mean over regions: regions are independent, each takes its own."""
    if len(regions) == 1:
        return regions[0]
    random = np.random.default_rng(0)
    return np.mean([random.choice(of_region, TEST_DRAWS) for of_region in regions], axis=0)


def _ranks(study: Study, lineup: tuple[str, ...]) -> Iterator[Rank]:
    complete = {scenario: _complete(study, lineup, scenario) for scenario in study.scenarios}
    complete = {scenario: found for scenario, found in complete.items() if found}
    own = [scenario for scenario in complete if scenario[0] == "id"]
    for metric in COMPARED:
        means = {scenario: _values(found, metric) for scenario, found in complete.items()}
        for scenario, found in complete.items():
            draws = np.concatenate(
                [np.stack([of.draws[metric] for of in each], axis=1) for each in found.values()]
            )
            draws = draws[~np.isnan(draws).any(axis=1)]
            values = means[scenario]
            yield Rank(
                metric,
                scenario,
                rank_stability(draws if len(draws) else values),
                friedman(values) if len(values) > 1 else None,
                _agreement(values, means[own[-1]]) if own else float("nan"),
            )


def _complete(
    study: Study, models: tuple[str, ...], scenario: Scenario
) -> dict[str, tuple[Estimate, ...]]:
    """The models' scores in every region of the study; nothing where any is missing."""
    found = {
        region: tuple(study.at(region, model, scenario) for model in models)
        for region in study.regions
    }
    complete = all(estimate for each in found.values() for estimate in each)
    return found if complete else {}


def _values(
    found: dict[str, tuple[Estimate, ...]], metric: str
) -> Float[np.ndarray, "regions families"]:
    return np.array([[of.value(metric) for of in each] for each in found.values()])


def _agreement(
    values: Float[np.ndarray, "regions families"], other: Float[np.ndarray, "regions families"]
) -> float:
    """Kendall's tau between two orders of the families by their means over regions."""
    return float(kendall_tau(np.stack([values.mean(axis=0), other.mean(axis=0)]))[0, 1])
