"""The page: one HTML file that holds its style, its script and its data."""

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from typing import Any

import jinja2

import jaxcrop
from jaxcrop.reports.analysis import Analysis
from jaxcrop.reports.findings import built_as, counts, findings, lead, warnings
from jaxcrop.reports.payload import payload
from jaxcrop.reports.study import Study
from jaxcrop.reports.sweep import Sweep

_STYLES = ("style", "toolbar", "charts", "tables", "media")
_SCRIPTS = (
    "dom", "state", "chart", "curves", "regions", "intervals", "inside", "tables", "statistics",
    "main",
)  # fmt: skip


def page(analysis: Analysis, figures: dict[str, str], tables: dict[str, bool]) -> str:
    """The whole page.

    `figures` names the files in the folder figures with their titles, `tables` those in the folder
    tables and whether they are there as LaTeX, too.
    """
    study, comparison, worth = analysis.study, analysis.comparison, analysis.worth
    sweep = study.sweep
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_read("page.html")).render(
        title=sweep.title,
        lead=lead(study),
        warnings=warnings(sweep),
        counts=counts(study),
        findings=findings(study, analysis.effects, analysis.traps),
        contents=_contents(analysis),
        named=partial(_named, figures),
        tables=tables,
        paper_note=_paper_note(study),
        has_traps=bool(analysis.traps),
        has_statistics=bool(comparison.pairs or worth.needs or worth.fits),
        has_pairs=bool(comparison.pairs),
        has_needs=bool(worth.needs),
        has_fits=bool(worth.fits),
        assumed=sorted({fit.law.assumed for fit in worth.fits if fit.law.assumed}),
        failures=sweep.failures,
        models=[
            (
                model.name,
                built_as(model),
                sum(len(group.results) for group in study.groups if group.model == model.name),
            )
            for model in study.models
        ],
        about=about(sweep),
        study_text=sweep.study_text,
        version=jaxcrop.__version__,
        style="\n".join(_read(f"{name}.css") for name in _STYLES),
        script="(() => {\n" + "\n".join(_read(f"{name}.js") for name in _SCRIPTS) + "})();\n",
        data=embedded(payload(analysis)),
    )


def embedded(values: dict[str, Any]) -> str:
    """JSON that may stand in a script element: nothing in it can close the element."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def about(sweep: Sweep) -> list[tuple[str, str, int]]:
    """What the runs say they were computed with: name, value, and how many runs say so."""
    said: Counter[tuple[str, str]] = Counter()
    for result in sweep.results:
        told = {name: of for name, of in result.about.items() if name not in _OF_ONE_RUN}
        said.update(_leaves("", told))
    rows: dict[str, list[tuple[str, int]]] = {}
    for (name, value), runs in said.items():
        rows.setdefault(name, []).append((value, runs))
    found = []
    for name in sorted(rows):
        values = sorted(rows[name], key=lambda of: (-of[1], of[0]))
        found += [(name, value, runs) for value, runs in values[:_MOST_VALUES]]
        if len(values) > _MOST_VALUES:
            rest = sum(runs for _, runs in values[_MOST_VALUES:])
            found.append((name, f"{len(values) - _MOST_VALUES} more values", rest))
    return found


_MOST_VALUES = 3
_OF_ONE_RUN = ("command", "started")


def _leaves(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        parts = ((f"{name}.{key}" if name else str(key), part) for key, part in value.items())
        return [leaf for part_name, part in parts for leaf in _leaves(part_name, part)]
    return [(name, str(value))]


def _read(name: str) -> str:
    return files("jaxcrop.reports").joinpath("page", name).read_text(encoding="utf-8")


def _named(figures: dict[str, str], *kinds: str) -> list[tuple[str, str]]:
    return [of for of in figures.items() if of[0].split("-")[0] in kinds]


def _contents(analysis: Analysis) -> Sequence[tuple[str, str]]:
    statistics = analysis.comparison.pairs or analysis.worth.needs or analysis.worth.fits
    return [
        ("curves", "Accuracy and labels"),
        ("regions", "Regions"),
        ("tables", "The paper’s tables"),
        ("averages", "What an average is divided by"),
        ("classes", "Classes"),
        ("confusion", "Confusion"),
        ("calibration", "Calibration"),
        ("examples", "Example chips"),
        *([("traps", "Traps")] if analysis.traps else []),
        *([("statistics", "How firm it is")] if statistics else []),
        ("runs", "What was run"),
    ]


def _paper_note(study: Study) -> str:
    if any(model.like_the_paper for model in study.models):
        return (
            "The known figures of the paper are of a frozen SSL4EO-S12 ResNet-50 under a U-Net, on "
            "the real datasets, one seed. Where ours have the same region, labels and metric, the "
            "paper’s stand below ours."
        )
    return (
        "The known figures of the paper are of a frozen SSL4EO-S12 ResNet-50 under a U-Net, on the "
        "real datasets, one seed. No model of this study is built like it: the differences are "
        "not like for like."
    )
