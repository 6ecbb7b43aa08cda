"""A sweep with everything that is derived from its results, as tables, figures and page need it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from jaxcrop.reports.estimates import Estimate, estimated
from jaxcrop.reports.groups import Group, Model, Scenario, grouped, scenario_order
from jaxcrop.reports.sweep import Sweep

METRICS = {
    "overall_accuracy": "Overall accuracy",
    "overall_jaccard": "Overall IoU",
    "average_accuracy": "Average accuracy, the paper's",
    "average_f1": "Average F1, the paper's",
    "average_precision": "Average precision, the paper's",
    "average_jaccard": "Average IoU, the paper's",
    "present_accuracy": "Average accuracy, present classes",
    "present_f1": "Average F1, present classes",
    "present_precision": "Average precision, present classes",
    "present_jaccard": "Average IoU, present classes",
    "kappa": "Cohen's kappa",
}
"""The metrics that differ. Overall F1, precision and recall equal overall accuracy, and an average
recall equals the average accuracy."""


@dataclass(frozen=True)
class Study:
    """A sweep, its models, its groups and the scores of each group, in the same order."""

    sweep: Sweep
    models: tuple[Model, ...]
    groups: tuple[Group, ...]
    estimates: tuple[Estimate, ...]

    @cached_property
    def regions(self) -> tuple[str, ...]:
        return tuple(sorted({group.region for group in self.groups}))

    @cached_property
    def scenarios(self) -> tuple[Scenario, ...]:
        """The scenarios that cells without a trap have."""
        found = {group.scenario for group in self.groups if not group.trap}
        return tuple(sorted(found, key=scenario_order))

    @cached_property
    def representatives(self) -> tuple[Model, ...]:
        """The models that stand for their families and weights."""
        return tuple(model for model in self.models if model.representative)

    @cached_property
    def _places(self) -> dict[tuple, int]:
        return {
            (group.region, group.model, group.scenario): number
            for number, group in enumerate(self.groups)
            if not group.trap
        }

    def at(self, region: str, model: str, scenario: Scenario) -> Estimate | None:
        """The scores of the group without a trap, or None where the sweep has none (yet)."""
        number = self._places.get((region, model, scenario))
        return None if number is None else self.estimates[number]

    def by_seed(self, region: str, model: str, scenario: Scenario, metric: str) -> dict[int, float]:
        """The metric of each seed of a group; empty where the sweep has none (yet)."""
        number = self._places.get((region, model, scenario))
        if number is None:
            return {}
        scores = self.estimates[number].seeds[metric].tolist()
        return dict(zip(self.groups[number].seeds, scores, strict=True))

    def chips(self, region: str) -> dict[str, tuple[float, float]]:
        """The test chips of a region: longitude and latitude by chip."""
        return {
            chip: (float(lon), float(lat))
            for group in self.groups
            if group.region == region
            for result in group.results
            for chip, lon, lat in zip(result.chip_ids, result.lon, result.lat, strict=True)
        }

    def place(self, region: str) -> tuple[float, float]:
        """The middle of a region's test chips: longitude and latitude."""
        lon, lat = np.mean(list(self.chips(region).values()), axis=0)
        return float(lon), float(lat)

    def difference(
        self, region: str, metric: str, minuend: tuple[str, Scenario], other: tuple[str, Scenario]
    ) -> tuple[float, Float[np.ndarray, " draws"]] | None:
        """The difference of two groups of a region, given by model and scenario, and its draws."""
        a, b = self.at(region, *minuend), self.at(region, *other)
        if a is None or b is None:
            return None
        return a.value(metric) - b.value(metric), a.draws[metric] - b.draws[metric]


def studied(sweep: Sweep) -> Study:
    """Derive everything from the results of a sweep."""
    models, groups = grouped(sweep.results)
    return Study(sweep, tuple(models), tuple(groups), tuple(estimated(groups)))
