"""What labels are worth: how many a model needs, and what more of them would bring."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxcrop.reports.families import COMPARED
from jaxcrop.reports.study import Study
from jaxcrop.statistics.bootstrap import Interval
from jaxcrop.statistics.learning_curves import PowerLaw, fit_power_law, labels_needed

SHARE = 0.95
"""The share of the full score whose labels are counted."""

MORE = 100
"""The further labels whose gain is foretold."""

_LEAST_BUDGETS = 3
_DRAWS = 200


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
    """The power law of a model's error in distribution, fitted from `least` to `most` labels."""

    metric: str
    region: str
    model: str
    law: PowerLaw
    least: float
    most: float

    @property
    def limit(self) -> Interval:
        """The score with endless labels."""
        error = self.law.predict(np.inf)
        return Interval(1 - error.value, 1 - error.high, 1 - error.low)

    @property
    def gain(self) -> Interval:
        """What MORE labels than the most would bring."""
        return self.law.gain(self.most, MORE)


class Worth(NamedTuple):
    """What labels are worth to every model."""

    needs: tuple[Need, ...]
    fits: tuple[Fit, ...]


def labels_worth(study: Study) -> Worth:
    """What labels are worth to every model, by the metrics that families are compared by."""
    return Worth(tuple(_needs(study)), tuple(_fits(study)))


def _needs(study: Study) -> Iterator[Need]:
    for metric in COMPARED:
        for region in study.regions:
            for model in study.models:
                for setting in ("id", "ood+id"):
                    budgets, scores = _curve(study, region, model.name, metric, setting)
                    if len(budgets) > 1 and len(scores):
                        needed = labels_needed(budgets, scores, SHARE, draws=_DRAWS)
                        yield Need(metric, region, model.name, setting, needed)


def _fits(study: Study) -> Iterator[Fit]:
    for metric in COMPARED:
        for region in study.regions:
            for model in study.models:
                budgets, scores = _curve(study, region, model.name, metric, "id")
                if len(budgets) >= _LEAST_BUDGETS and len(scores):
                    labels = np.tile(budgets, len(scores))
                    law = fit_power_law(labels, 1 - scores.ravel(), draws=_DRAWS)
                    yield Fit(metric, region, model.name, law, budgets[0], budgets[-1])


def _curve(
    study: Study, region: str, model: str, metric: str, setting: str
) -> tuple[Float[np.ndarray, " budgets"], Float[np.ndarray, "seeds budgets"]]:
    """The numbered budgets and the scores of the seeds that have them all.

    To OOD+ID, the runs on the other regions alone are those with a budget of 0.
    """
    settings = {"id": ("id",), "ood+id": ("ood", "ood+id")}[setting]
    columns = {}
    for scenario in study.scenarios:
        scores = study.by_seed(region, model, scenario, metric)
        if scenario[0] in settings and scenario[1] is not None and scores:
            columns[scenario[1]] = scores
    seeds = set.intersection(*map(set, columns.values())) if columns else set()
    budgets = sorted(columns)
    rows = [[columns[budget][seed] for budget in budgets] for seed in sorted(seeds)]
    return np.array(budgets, float), np.array(rows)
