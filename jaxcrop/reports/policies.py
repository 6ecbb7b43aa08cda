"""How much of two claims of the paper depends on what an average is divided by."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxcrop.reports.groups import Group, Model, Scenario
from jaxcrop.reports.paper import figures
from jaxcrop.reports.study import Study
from jaxcrop.statistics.bootstrap import Interval, interval
from jaxcrop.statistics.policies import moving_denominator

SCORES = ("overall_accuracy", "average_accuracy", "present_accuracy")


@dataclass(frozen=True)
class Claim:
    """A claim as a difference of two scenarios, `then` minus `first`, and what it says."""

    name: str
    title: str
    first: Scenario
    then: Scenario


@dataclass(frozen=True)
class Effect:
    """The difference that a claim is about, of a model in a region; over all where that is None.

    `score` and `paper` are by metric; `denominator` is the share of the average
    accuracy's difference that the moving denominator makes: 1 - present classes' over the paper's
    average. It is None where the difference is too small to be divided (half a point).
    """

    claim: Claim
    region: str | None
    model: str
    score: dict[str, Interval]
    paper: dict[str, float]

    @property
    def denominator(self) -> float | None:
        moving, fixed = self.score["average_accuracy"].value, self.score["present_accuracy"].value
        return 1 - fixed / moving if abs(moving) >= 0.005 else None


def claims(study: Study) -> list[Claim]:
    """The paper's claims at the two largest budgets that the study has in distribution."""
    budgets = [b for setting, b in study.scenarios if setting == "id" and b is not None]
    found = []
    if len(budgets) >= 2:
        low, high = budgets[-2:]
        title = f"From {low:,} to {high:,} labels, in distribution"
        found.append(Claim("labels", title, ("id", low), ("id", high)))
    both = [b for b in budgets if ("ood+id", b) in study.scenarios]
    if both:
        title = f"Other regions' data added to {both[-1]:,} labels"
        found.append(Claim("other regions", title, ("id", both[-1]), ("ood+id", both[-1])))
    return found


def effects(study: Study) -> list[Effect]:
    """Every claim for every region and model that has both scenarios, then over the regions."""
    found = []
    for claim in claims(study):
        for model in study.models:
            of_model = list(_of_regions(study, claim, model))
            found += [effect for effect, _ in of_model]
            if len(of_model) > 1:
                found.append(_over_regions(claim, model, of_model))
    return found


def classes_counted(group: Group) -> tuple[float, float]:
    """Classes that the paper's average divides by, and those in the labels: means over seeds."""
    of = moving_denominator(group.confusions)
    return float(np.mean(of.counted)), float(np.mean(of.counted - of.absent))


_Draws = dict[str, np.ndarray]


def _of_regions(study: Study, claim: Claim, model: Model) -> Iterator[tuple[Effect, _Draws]]:
    for region in study.regions:
        value, draws = {}, {}
        for metric in SCORES:
            found = study.difference(
                region, metric, (model.name, claim.then), (model.name, claim.first)
            )
            if found is not None:
                value[metric], draws[metric] = found
        if value:
            score = {metric: interval(value[metric], draws[metric]) for metric in SCORES}
            paper = _paper(region, claim) if model.like_the_paper else {}
            yield Effect(claim, region, model.name, score, paper), draws


def _over_regions(claim: Claim, model: Model, of_model: list[tuple[Effect, _Draws]]) -> Effect:
    score = {
        metric: interval(
            float(np.mean([effect.score[metric].value for effect, _ in of_model])),
            np.mean([draws[metric] for _, draws in of_model], axis=0),
        )
        for metric in SCORES
    }
    known = [effect.paper for effect, _ in of_model]
    paper = {
        metric: float(np.mean([of_region[metric] for of_region in known]))
        for metric in SCORES
        if all(metric in of_region for of_region in known)
    }
    return Effect(claim, None, model.name, score, paper)


def _paper(region: str, claim: Claim) -> dict[str, float]:
    """The difference in version 1 of the paper, which alone has average accuracies."""
    found = {}
    for metric in SCORES:
        ends = [
            {known.version: known.value for known in figures(region, metric, *scenario)}
            for scenario in (claim.first, claim.then)
        ]
        if all("v1" in of_scenario for of_scenario in ends):
            found[metric] = ends[1]["v1"] - ends[0]["v1"]
    return found
