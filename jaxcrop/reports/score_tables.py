"""Tables of the scores: every run, every group, and the paper's own tables beside its figures."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxcrop.crops import CROPS
from jaxcrop.reports.estimates import CLASS_SCORES
from jaxcrop.reports.findings import reference
from jaxcrop.reports.groups import Scenario, scenario_title
from jaxcrop.reports.paper import EXTRA_REGION, Known, figures
from jaxcrop.reports.policies import classes_counted
from jaxcrop.reports.study import METRICS, Study
from jaxcrop.reports.tables import Kind, Table
from jaxcrop.training.calibration import calibration_errors
from jaxcrop.training.metrics import metrics, per_class

ALL_METRICS = tuple(metrics(np.zeros((2, 2), np.int64)))
"""Every metric by its name, those that coincide too."""

_TITLES = {
    "overall": "all pixels", "average": "the paper's average", "present": "present classes"
}  # fmt: skip


def score_tables(study: Study) -> list[Table]:
    """Every table of scores; `id`, `ood`, `ood_id` and `id_budgets` where the study has them."""
    tables = [make(study) for make in (_runs, _results, _classes, _confusion, _calibration)]
    for name, scenario in (("id", reference(study)), ("ood", ("ood", 0))):
        if scenario in study.scenarios and scenario[0] == name:
            tables.append(_metrics(study, name, scenario))
    for name, settings in (("id_budgets", ("id",)), ("ood_id", ("ood", "ood+id"))):
        scenarios = [scenario for scenario in study.scenarios if scenario[0] in settings]
        if scenarios:
            tables.append(_budgets(study, name, scenarios))
    return tables


def _runs(study: Study) -> Table:
    """Every run with its settings and every metric."""
    cells = ("part", "region", "family", "architecture", "decoder", "method", "setting")
    head = (*cells, "budget", "seed", "learning_rate", "trap", "key", "synthetic", "seconds")
    rows = []
    for group in study.groups:
        for result in group.results:
            cell = result.cell
            values = metrics(result.confusion)
            rows.append(
                [
                    group.model,
                    *(getattr(cell, name) for name in cells),
                    _budget(cell.budget),
                    *(cell.seed, cell.learning_rate, cell.trap, cell.key),
                    *(result.synthetic, result.seconds),
                    *(values[metric] for metric in ALL_METRICS),
                ]
            )
    columns: dict[str, Kind] = {"model": "text", **dict.fromkeys(head, "text")}
    columns |= dict.fromkeys(ALL_METRICS, "share")
    return Table("runs", "Every run.", columns, rows, latex=False)


def _results(study: Study) -> Table:
    """Every group and metric with its interval and the paper's figures."""
    rows = []
    for group, estimate in zip(study.groups, study.estimates, strict=True):
        counted, present = classes_counted(group)
        synthetic = any(result.synthetic for result in group.results)
        for metric in ALL_METRICS:
            of = estimate.interval(metric)
            seeds = estimate.seeds[metric]
            known = {
                figure.version: figure
                for figure in _paper(study, group.region, group.model, metric, group.scenario)
                if not group.trap
            }
            rows.append(
                [
                    *(group.region, group.model, group.setting, _budget(group.budget), group.trap),
                    *(metric, *of, seeds.std(ddof=1) if len(seeds) > 1 else None, len(seeds)),
                    *(counted, present, synthetic),
                    *_beside(of.value, known.get("v1")),
                    *_beside(of.value, known.get("final")),
                ]
            )
    columns: dict[str, Kind] = {
        **dict.fromkeys(("region", "model", "setting", "budget", "trap", "metric"), "text"),
        **dict.fromkeys(("value", "low", "high", "sd_of_seeds"), "share"),
        "seeds": "count",
        **dict.fromkeys(("classes_counted", "classes_present"), "plain"),
        "synthetic": "text",
    }
    for version in ("v1", "final"):
        columns |= {
            f"paper_{version}": "share",
            f"difference_{version}": "points",
            f"doubtful_{version}": "text",
        }
    return Table("results", "Every group and metric.", columns, rows, latex=False)


def _metrics(study: Study, name: str, scenario: Scenario) -> Table:
    """Every metric of one scenario, beside the paper's overall and average accuracy."""
    rows = []
    for region in study.regions:
        for model in study.models:
            estimate = study.at(region, model.name, scenario)
            if estimate is None:
                continue
            paper = []
            for metric in ("overall_accuracy", "average_accuracy"):
                known = _paper(study, region, model.name, metric, scenario)
                first = known[0] if known else None
                paper += _beside(estimate.value(metric), first)[:2]
            values = [estimate.value(metric) for metric in ALL_METRICS]
            rows.append([region, model.name, *values, *paper])
    columns: dict[str, Kind] = {"region": "text", "model": "text"}
    columns |= {_title(metric): _kind(metric) for metric in ALL_METRICS}
    for of in ("overall", "average"):
        columns |= {f"paper v1, {of} accuracy": "share", f"difference, {of} accuracy": "points"}
    return Table(name, f"Every metric, {scenario_title(scenario)}, in per cent.", columns, rows)


def _budgets(study: Study, name: str, scenarios: list[Scenario]) -> Table:
    """Every metric by budget, beside each version of the paper that has it."""
    rows: list[list[Any]] = []
    for metric, title in METRICS.items():
        for region in dict.fromkeys((*study.regions, EXTRA_REGION)):
            models = [model.name for model in study.models] if region in study.regions else [""]
            for model in models:
                rows += _budget_rows(study, (title, region, model), metric, scenarios)
    columns: dict[str, Kind] = {
        **dict.fromkeys(("metric", "region", "model", "paper"), "text"),
    }
    for _, budget in scenarios:
        column = str(_budget(budget))
        columns |= {column: "share", f"{column} paper": "share", f"{column} difference": "points"}
    columns["doubtful"] = "text"
    return Table(name, "Scores by labelled chips, in per cent.", columns, rows)


def _budget_rows(
    study: Study, head: tuple[str, str, str], metric: str, scenarios: list[Scenario]
) -> Iterator[list[Any]]:
    _, region, model = head
    known = {
        scenario: {of.version: of for of in _paper(study, region, model, metric, scenario)}
        for scenario in scenarios
    }
    versions = sorted({version for of in known.values() for version in of}, reverse=True)
    estimates = {scenario: study.at(region, model, scenario) for scenario in scenarios}
    if not any(estimates.values()) and not versions:
        return
    for version in versions or [""]:
        row: list[Any] = [*head, version]
        for scenario in scenarios:
            of = estimates[scenario]
            value = of.value(metric) if of else None
            row += [value, *_beside(value, known[scenario].get(version))[:2]]
        doubtful = [
            str(_budget(scenario[1]))
            for scenario in scenarios
            if version in known[scenario] and known[scenario][version].doubtful
        ]
        yield [*row, " ".join(doubtful)]


def _classes(study: Study) -> Table:
    """The scores of each class that occurs in the labels."""
    rows = []
    for group, estimate in zip(study.groups, study.estimates, strict=True):
        truth = per_class(group.confusions.sum(axis=0))["truth"]
        for number in np.flatnonzero(truth):
            for score in CLASS_SCORES:
                rows.append(
                    [
                        *(group.region, group.model, group.setting, _budget(group.budget)),
                        *(group.trap, CROPS[number].name, int(truth[number]), score),
                        *estimate.classes[score][:, number],
                    ]
                )
    head = ("region", "model", "setting", "budget", "trap", "class")
    columns: dict[str, Kind] = {
        **dict.fromkeys(head, "text"),
        "pixels": "count",
        "score": "text",
        **dict.fromkeys(("value", "low", "high"), "share"),
    }
    return Table("classes", "Scores of classes.", columns, rows, latex=False)


def _confusion(study: Study) -> Table:
    """The confusion matrix of each group, all seeds together."""
    names = [crop.name for crop in CROPS]
    rows = [
        [group.region, group.model, group.setting, _budget(group.budget), group.trap, name, *counts]
        for group in study.groups
        for name, counts in zip(names, group.confusions.sum(axis=0).tolist(), strict=True)
    ]
    head = ("region", "model", "setting", "budget", "trap", "truth")
    columns: dict[str, Kind] = {
        **dict.fromkeys(head, "text"),
        **dict.fromkeys((f"as {name}" for name in names), "count"),
    }
    return Table("confusion", "Pixels of each class by prediction.", columns, rows, latex=False)


def _calibration(study: Study) -> Table:
    """The calibration of each group, all seeds together."""
    rows = []
    for group in study.groups:
        errors = calibration_errors(sum(result.calibration for result in group.results))
        rows.append(
            [
                *(group.region, group.model, group.setting, _budget(group.budget), group.trap),
                *(errors["expected"], errors["maximum"]),
            ]
        )
    columns: dict[str, Kind] = {
        **dict.fromkeys(("region", "model", "setting", "budget", "trap"), "text"),
        **dict.fromkeys(("expected_error", "maximum_error"), "share"),
    }
    return Table("calibration", "Calibration errors.", columns, rows, latex=False)


def _paper(
    study: Study, region: str, model: str, metric: str, scenario: Scenario
) -> tuple[Known, ...]:
    """The paper's figures that a model's score stands beside: those of SSL4EO-S12."""
    families = {of.name: of.family for of in study.models}
    if families.get(model, "ssl4eo") != "ssl4eo":
        return ()
    return figures(region, metric, *scenario)


def _beside(value: float | None, known: Known | None) -> list[Any]:
    """The paper's figure, the difference from it, and whether it is doubtful."""
    if known is None:
        return [None, None, ""]
    return [known.value, None if value is None else value - known.value, known.doubtful]


def _budget(budget: int | None) -> int | str:
    return "all" if budget is None else budget


def _kind(metric: str) -> Kind:
    return "plain" if metric == "kappa" else "share"


def _title(metric: str) -> str:
    average, _, score = metric.partition("_")
    return f"{score}, {_TITLES[average]}" if score else metric
