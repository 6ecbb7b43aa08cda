"""The study's families compared, and what labels are worth to each."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from jaxcrop.reports.groups import Scenario
from jaxcrop.reports.study import Study
from jaxcrop.statistics.bootstrap import Interval, interval
from jaxcrop.statistics.comparisons import holm
from jaxcrop.statistics.learning_curves import labels_needed
from jaxcrop.statistics.ranks import rank_stability

COMPARED = ("overall_accuracy", "average_accuracy", "present_accuracy", "present_f1",
            "present_jaccard")  # fmt: skip
"""The metrics that families are compared by."""

SHARE = 0.95
"""The share of the full score whose labels are counted."""


@dataclass(frozen=True)
class Pair:
    """Two families' difference in a scenario, the mean over regions, and in each region.

    `p_value` is two-sided, corrected by Holm over all pairs and scenarios of the metric.
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
    """Each family's mean rank and how often it is first, over regions and seeds; Kendall's W."""

    metric: str
    scenario: Scenario
    mean: tuple[float, ...]
    first: tuple[float, ...]
    concordance: float


@dataclass(frozen=True)
class Need:
    """The labels at which a model reaches SHARE of its score with the most labels."""

    metric: str
    region: str
    model: str
    setting: str
    labels: Interval


@dataclass(frozen=True)
class Fit:
    """Error = asymptote + scale * labels ** -exponent, for a model in distribution.

    `limit` is the score with endless labels, `gain` what 100 more than the most would bring.
    """

    metric: str
    region: str
    model: str
    asymptote: float
    scale: float
    exponent: float
    limit: Interval
    gain: Interval
    budgets: tuple[int, int]


@dataclass(frozen=True)
class Families:
    """Everything that compares the families; `lineup` names the models that stand for them."""

    lineup: tuple[str, ...]
    pairs: tuple[Pair, ...]
    ranks: tuple[Rank, ...]
    efficiency: tuple[Need, ...]
    fits: tuple[Fit, ...]


def compared(study: Study) -> Families:
    """Compare the families of a study as far as it has come."""
    lineup = tuple(model.name for model in study.representatives)
    several = len(lineup) > 1
    return Families(
        lineup,
        tuple(_pairs(study, lineup)) if several else (),
        tuple(_ranks(study, lineup)) if several else (),
        tuple(_needs(study)),
        tuple(_fits(study)),
    )


def _pairs(study: Study, lineup: tuple[str, ...]) -> Iterator[Pair]:
    for metric in COMPARED:
        found = []
        for scenario in study.scenarios:
            for first, second in combinations(lineup, 2):
                of = {
                    region: study.difference(region, metric, (first, scenario), (second, scenario))
                    for region in study.regions
                }
                if all(of.values()):
                    found.append((scenario, first, second, of))
        means = [
            (
                float(np.mean([value for value, _ in of.values()])),
                np.mean([draws for _, draws in of.values()], axis=0),
            )
            for *_, of in found
        ]
        corrected = holm(np.array([two_sided(draws) for _, draws in means]))
        for (scenario, first, second, of), (value, draws), p in zip(
            found, means, corrected, strict=True
        ):
            yield Pair(
                metric,
                scenario,
                first,
                second,
                interval(value, draws),
                float(p),
                {region: value for region, (value, _) in of.items()},
            )


def two_sided(draws: np.ndarray) -> float:
    """The bootstrap's two-sided p-value of a difference that is 0; NaN without draws."""
    drawn = draws[~np.isnan(draws)]
    if not len(drawn):
        return float("nan")
    fewer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return min(1.0, 2 * (1 + float(fewer)) / (1 + len(drawn)))


def _ranks(study: Study, lineup: tuple[str, ...]) -> Iterator[Rank]:
    for metric in COMPARED:
        for scenario in study.scenarios:
            rows = _by_seed(study, lineup, metric, scenario)
            if len(rows):
                of = rank_stability(rows)
                yield Rank(
                    metric, scenario, tuple(of.mean_ranks), tuple(of.first), float(of.concordance)
                )


def _by_seed(study: Study, lineup: tuple[str, ...], metric: str, scenario: Scenario) -> np.ndarray:
    """Scores of the families, a row for each region and seed that all of them have."""
    rows = []
    for region in study.regions:
        scores = [study.by_seed(region, model, scenario, metric) for model in lineup]
        seeds = set.intersection(*(set(of_model) for of_model in scores))
        rows += [[of_model[seed] for of_model in scores] for seed in sorted(seeds)]
    return np.array(rows)


def _needs(study: Study) -> Iterator[Need]:
    for metric in COMPARED:
        for region in study.regions:
            for model in study.models:
                for setting in ("id", "ood+id"):
                    curve = study.curve(region, model.name, setting, metric)
                    if len(curve) > 1:
                        budgets = np.array(list(curve), float)
                        yield Need(
                            metric,
                            region,
                            model.name,
                            setting,
                            labels_needed(budgets, np.stack(list(curve.values())), share=SHARE),
                        )


def _fits(study: Study) -> Iterator[Fit]:
    for metric in COMPARED:
        for region in study.regions:
            for model in study.models:
                curve = study.curve(region, model.name, "id", metric)
                if len(curve) >= 3:
                    yield _fit(metric, region, model.name, curve)


def _fit(metric: str, region: str, model: str, curve: dict[int, np.ndarray]) -> Fit:
    raise NotImplementedError
