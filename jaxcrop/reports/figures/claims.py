"""Figures of values with intervals: averages, traps, families compared, ranks, labels needed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxcrop.reports.families import Comparison
from jaxcrop.reports.figures.style import INK, SOFT, Look, legend, lines, panels, signed
from jaxcrop.reports.groups import SETTING_TITLES, region_name, scenario_title
from jaxcrop.reports.labels import SHARE, Need
from jaxcrop.reports.policies import Effect
from jaxcrop.reports.study import METRICS, Study
from jaxcrop.reports.traps import TrapEffect
from jaxcrop.statistics.bootstrap import Interval

COMPARED = "overall_accuracy"
"""The metric that figures of comparisons are of; the page and the tables have others."""


@dataclass(frozen=True)
class Dot:
    """A value of a row, how it looks, and how far above the row's middle it stands."""

    of: Interval
    look: dict
    shift: float = 0.0


def policies(study: Study, effects: Sequence[Effect]) -> Figure:
    """Two claims of the paper under three averages, for the first model."""
    claims = list(dict.fromkeys(effect.claim for effect in effects))
    model = effects[0].model
    figure, grid = panels(len(claims), wide=5.0, tall=3.2, most=2)
    for claim, axes in zip(claims, grid, strict=True):
        rows = [of for of in effects if of.claim == claim and of.model == model]
        labels = [region_name(effect.region) if effect.region else "All regions" for effect in rows]
        _rows(axes, labels, [_policy_dots(effect) for effect in rows], zero=True)
        axes.set_title(claim.title)
        axes.set_xlabel(f"change (points), {model}")
    legend(
        figure,
        [
            Line2D([], [], label=text, **look)
            for text, look in (
                ("average accuracy, the paper's denominator", _OPEN),
                ("average accuracy, classes in the labels", _FILLED),
                ("overall accuracy", _FAINT),
                ("the paper, version 1", _CROSS),
            )
        ],
        columns=2,
    )
    signed(grid[0], study)
    return figure


_OPEN = {"marker": "o", "ls": "", "color": INK, "markerfacecolor": "white", "markersize": 6}
_FILLED = {"marker": "o", "ls": "", "color": INK, "markersize": 6}
_FAINT = {"marker": "o", "ls": "", "color": "#9aa3a8", "markersize": 4}
_CROSS = {"marker": "x", "ls": "", "color": INK, "markersize": 6}


def _policy_dots(effect: Effect) -> list[Dot]:
    dots = [
        Dot(_percent(effect.score["average_accuracy"]), _OPEN, 0.15),
        Dot(_percent(effect.score["present_accuracy"]), _FILLED),
        Dot(_percent(effect.score["overall_accuracy"]), _FAINT, -0.15),
    ]
    if "average_accuracy" in effect.paper:
        known = 100 * effect.paper["average_accuracy"]
        dots.append(Dot(Interval(known, np.nan, np.nan), _CROSS, 0.15))
    return dots


def traps(study: Study, effects: Sequence[TrapEffect]) -> Figure:
    """What each trap changes in overall accuracy, and the average over present classes."""
    names = list(dict.fromkeys(effect.trap for effect in effects))
    metrics = (COMPARED, "present_accuracy")
    figure, grid = panels(len(metrics), wide=5.0, tall=0.8 + 0.35 * len(names), most=2, sharey=True)
    for metric, axes in zip(metrics, grid, strict=True):
        rows = []
        for name in names:
            of_trap = [effect for effect in effects if effect.trap == name]
            regions = [e.score[metric].value for e in of_trap if e.region is not None]
            pooled = next(e.score[metric] for e in of_trap if e.region is None)
            faint = [Dot(Interval(100 * v, np.nan, np.nan), _FAINT, -0.15) for v in regions]
            rows.append([*faint, Dot(_percent(pooled), _FILLED)])
        _rows(axes, names, rows, zero=True)
        axes.set_title(METRICS[metric])
        axes.set_xlabel("change (points); grey: each region")
    signed(grid[0], study)
    return figure


def differences(study: Study, comparison: Comparison) -> Figure:
    """Every pair of families, averaged over the regions, by scenario."""
    found = [pair for pair in comparison.pairs if pair.metric == COMPARED]
    kinds = list(dict.fromkeys((pair.first, pair.second) for pair in found))
    scenarios = list(dict.fromkeys(pair.scenario for pair in found))
    figure, grid = panels(len(kinds), wide=3.9, tall=0.9 + 0.3 * len(scenarios), sharey=True)
    for kind, axes in zip(kinds, grid, strict=True):
        rows = [pair for pair in found if (pair.first, pair.second) == kind]
        dots = [
            [Dot(_percent(pair.difference), _FILLED if pair.p_value < 0.05 else _OPEN)]
            for pair in rows
        ]
        _rows(axes, [scenario_title(pair.scenario) for pair in rows], dots, zero=True)
        axes.set_title("{}\nminus {}".format(*(lines(name, 32) for name in kind)))
        axes.set_xlabel("points of overall accuracy")
    legend(
        figure,
        [
            Line2D([], [], label="corrected p below 0.05", **_FILLED),
            Line2D([], [], label="not below", **_OPEN),
        ],
    )
    signed(grid[0], study)
    return figure


def ranks(study: Study, comparison: Comparison) -> Figure:
    """How often each family is first, by scenario."""
    look = Look(study)
    rows = [rank for rank in comparison.ranks if rank.metric == COMPARED]
    figure = Figure(figsize=(7, 1.1 + 0.32 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    start = np.zeros(len(rows))
    for number, model in enumerate(comparison.lineup):
        share = np.array([100 * rank.stability.first[number] for rank in rows])
        axes.barh(range(len(rows)), share, 0.7, left=start, color=look.colour(model), label=model)
        start += share
    axes.set_yticks(range(len(rows)), [scenario_title(rank.scenario) for rank in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("first in overall accuracy (% of regions and draws)")
    axes.tick_params(length=0)
    legend(figure, axes.get_legend_handles_labels()[0])
    signed(axes, study)
    return figure


def efficiency(study: Study, needs: Sequence[Need]) -> Figure:
    """The labels that each family needs, by region and setting."""
    look = Look(study)
    found = [need for need in needs if need.metric == COMPARED]
    kinds = list(dict.fromkeys((need.region, need.setting) for need in found))
    figure = Figure(figsize=(7, 1.3 + 0.4 * len(kinds)), layout="constrained")
    axes = figure.add_subplot()
    rows = []
    for kind in kinds:
        alike = [need for need in found if (need.region, need.setting) == kind]
        rows.append(
            [
                Dot(
                    need.labels,
                    {
                        "marker": look.marker(need.model),
                        "color": look.colour(need.model),
                        "markerfacecolor": (
                            look.colour(need.model) if need.setting == "id" else "white"
                        ),
                        "markersize": 5,
                        "ls": "",
                    },
                    ((len(alike) - 1) / 2 - number) * 0.22,
                )
                for number, need in enumerate(alike)
            ]
        )
    labels = [
        f"{region_name(region)}, {SETTING_TITLES.get(setting, setting)}"
        for region, setting in kinds
    ]
    _rows(axes, labels, rows)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,g}")  # powers of ten are mathematics, which is off
    axes.set_xlabel(f"labels needed for {SHARE:.0%} of the full overall accuracy")
    legend(figure, [look.key(model.name, ls="") for model in study.models])
    signed(axes, study)
    return figure


def _rows(axes: Axes, labels: Sequence[str], rows: Sequence[Sequence[Dot]], zero=False) -> None:
    """Values with their intervals on one axis, the first row on top."""
    for number, dots in enumerate(rows):
        for dot in dots:
            y = number - dot.shift
            if np.isfinite([dot.of.low, dot.of.high]).all() and dot.look is not _FAINT:
                axes.plot([dot.of.low, dot.of.high], [y, y], color=dot.look["color"], lw=1.3)
            axes.plot(dot.of.value, y, **dot.look)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.tick_params(length=0)
    if zero:
        axes.axvline(0, color=SOFT, lw=0.8, zorder=1)


def _percent(of: Interval) -> Interval:
    return Interval(*(100 * value for value in of))
