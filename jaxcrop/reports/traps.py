"""What each trap that an ablation opens changes."""

from dataclasses import dataclass

import numpy as np

from jaxcrop.reports.estimates import Estimate
from jaxcrop.reports.groups import Group
from jaxcrop.reports.study import METRICS, Study
from jaxcrop.statistics.bootstrap import Interval, interval


@dataclass(frozen=True)
class TrapEffect:
    """A trap's cells minus the same cells without it, the mean over models and scenarios.

    It is also the mean over regions where `region` is None.
    `score` is by metric; `pairs` counts the regions, models and scenarios that were compared.
    """

    trap: str
    region: str | None
    pairs: int
    score: dict[str, Interval]


def trap_effects(study: Study) -> list[TrapEffect]:
    """The effect of each trap over all regions, and in each region, in the draws' blocks."""
    pairs: dict[str, list[tuple[Group, Estimate, Estimate]]] = {}
    for group, estimate in zip(study.groups, study.estimates, strict=True):
        without = study.at(group.region, group.model, group.scenario)
        if group.trap and without is not None:
            pairs.setdefault(group.trap, []).append((group, estimate, without))
    found = []
    for trap, of_trap in sorted(pairs.items()):
        found.append(_effect(trap, None, of_trap))
        for region in sorted({group.region for group, *_ in of_trap}):
            of_region = [pair for pair in of_trap if pair[0].region == region]
            found.append(_effect(trap, region, of_region))
    return found


def _effect(
    trap: str, region: str | None, pairs: list[tuple[Group, Estimate, Estimate]]
) -> TrapEffect:
    score = {}
    for metric in METRICS:
        found = [opened.value(metric) - closed.value(metric) for _, opened, closed in pairs]
        drawn = [opened.draws[metric] - closed.draws[metric] for _, opened, closed in pairs]
        score[metric] = interval(float(np.mean(found)), np.mean(drawn, axis=0))
    return TrapEffect(trap, region, len(pairs), score)
