"""What each trap that an ablation opens changes."""

from dataclasses import dataclass

import numpy as np

from jaxcrop.reports.estimates import Estimate, interval
from jaxcrop.reports.groups import Group
from jaxcrop.reports.study import METRICS, Study


@dataclass(frozen=True)
class TrapEffect:
    """A trap's cells minus the same cells without it, the mean over regions, models, scenarios.

    `value`, `low` and `high` are by metric; `pairs` counts the regions, models and scenarios.
    """

    trap: str
    pairs: int
    regions: tuple[str, ...]
    value: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]


def trap_effects(study: Study) -> list[TrapEffect]:
    """The effect of each trap over all regions, and in each region, in the draws' blocks."""
    pairs: dict[str, list[tuple[Group, Estimate, Estimate]]] = {}
    for group, estimate in zip(study.groups, study.estimates, strict=True):
        without = study.at(group.region, group.model, group.scenario)
        if group.trap and without is not None:
            pairs.setdefault(group.trap, []).append((group, estimate, without))
    found = []
    for trap, of_trap in sorted(pairs.items()):
        found.append(_effect(trap, of_trap))
        for region in sorted({group.region for group, *_ in of_trap}):
            found.append(_effect(trap, [pair for pair in of_trap if pair[0].region == region]))
    return found


def _effect(trap: str, pairs: list[tuple[Group, Estimate, Estimate]]) -> TrapEffect:
    value, ends = {}, {}
    for metric in METRICS:
        found = [opened.value(metric) - closed.value(metric) for _, opened, closed in pairs]
        drawn = [opened.draws[metric] - closed.draws[metric] for _, opened, closed in pairs]
        value[metric] = float(np.mean(found))
        ends[metric] = interval(np.mean(drawn, axis=0))
    return TrapEffect(
        trap,
        len(pairs),
        tuple(sorted({group.region for group, *_ in pairs})),
        value,
        {metric: low for metric, (low, _) in ends.items()},
        {metric: high for metric, (_, high) in ends.items()},
    )
