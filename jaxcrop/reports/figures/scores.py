"""Figures of the scores: curves over labels, heat maps, the map of the regions."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxcrop.reports.figures.style import (
    HEAT,
    INK,
    SOFT,
    Look,
    legend,
    panels,
    region_title,
    signed,
)  # fmt: skip
from jaxcrop.reports.findings import reference
from jaxcrop.reports.groups import SETTING_TITLES, Scenario, region_name, scenario_title
from jaxcrop.reports.study import METRICS, Study
from jaxcrop.reports.world import SIZE, land, on_map


def curves(study: Study, metric: str) -> Figure:
    """The metric over the labels, a panel for each region, with bands over seeds and blocks."""
    look = Look(study)
    figure, grid = panels(len(study.regions), sharey=True)
    places = _places(study)
    for region, axes in zip(study.regions, grid, strict=True):
        for model in study.models:
            for own in (True, False):
                _curve(axes, study, region, model.name, metric, look=look, own=own, places=places)
        axes.set_title(region_title(region))
        axes.grid(axis="y")
        axes.set_xticks(list(places.values()), [_budget(budget) for budget in places])
        axes.set_xlabel("labelled chips of the region")
        axes.tick_params(length=0)
    grid[0].set_ylabel(_axis(metric))
    handles = [look.key(model.name) for model in study.models]
    if any(setting != "id" for setting, _ in study.scenarios):
        handles += [
            Line2D([], [], color=SOFT, label="ID"),
            Line2D([], [], color=SOFT, ls="--", label="OOD+ID (OOD at 0)"),
        ]
    legend(figure, handles)
    signed(grid[0], study)
    return figure


def _curve(
    axes: Axes,
    study: Study,
    region: str,
    model: str,
    metric: str,
    *,
    look: Look,
    own: bool,
    places: dict[int | None, float],
) -> None:
    """The line of one model: of its own labels, or of other regions' data too."""
    found = [
        (places[budget], *estimate.interval(metric))
        for setting, budget in study.scenarios
        if (setting == "id") == own
        and (estimate := study.at(region, model, (setting, budget))) is not None
    ]
    if not found:
        return
    x, value, low, high = np.array(sorted(found)).T
    colour = look.colour(model)
    axes.fill_between(
        x, _scaled(low, metric), _scaled(high, metric), color=colour, alpha=0.13, lw=0
    )
    axes.plot(
        x,
        _scaled(value, metric),
        color=colour,
        marker=look.marker(model),
        markersize=4.5,
        markerfacecolor=colour if own else "white",
        ls="-" if own else "--",
    )


def heat(study: Study, metric: str) -> Figure:
    """The metric of every region, model and scenario."""
    rows = [
        (region, model.name)
        for region in study.regions
        for model in study.models
        if any(study.at(region, model.name, scenario) for scenario in study.scenarios)
    ]
    values = np.array(
        [[_value(study, *row, scenario, metric) for scenario in study.scenarios] for row in rows]
    )
    labels = [f"{region_name(region)}, {model}" for region, model in rows]
    beside = 1.2 + 0.07 * max(map(len, labels))  # inches for the labels and the colour bar
    figure = Figure(
        figsize=(beside + 0.8 * len(study.scenarios), 1.1 + 0.27 * len(rows)), layout="constrained"
    )
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap=HEAT, aspect="auto")
    middle = (np.nanmin(values) + 2 * np.nanmax(values)) / 3
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{value:.3f}" if metric == "kappa" else f"{value:.1f}"
            colour = "white" if value > middle else INK
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(
        range(len(study.scenarios)),
        [f"{SETTING_TITLES.get(s, s)}\n{_budget(b)}" for s, b in study.scenarios],
    )
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    regions = [region for region, _ in rows]
    for row in range(1, len(rows)):
        if regions[row] != regions[row - 1]:
            axes.axhline(row - 0.5, color="white", lw=4)
    figure.colorbar(image, ax=axes, shrink=0.6, label=_axis(metric)).outline.set_visible(False)
    signed(axes, study)
    return figure


def world(study: Study) -> Figure:
    """Where the test chips lie, coloured by the best model's overall accuracy."""
    scenario, metric = reference(study), "overall_accuracy"
    figure = Figure(figsize=(9, 9 * SIZE[1] / SIZE[0] + 0.4), layout="constrained")
    axes = figure.add_subplot()
    axes.add_collection(PolyCollection(land(), facecolor="#e4e7e3", edgecolor="none"))
    best = {
        region: np.array([_value(study, region, m.name, scenario, metric) for m in study.models])
        for region in study.regions
    }
    best = {r: np.nanmax(of) if np.isfinite(of).any() else np.nan for r, of in best.items()}
    least, most = np.nanmin([*best.values(), 100]), np.nanmax([*best.values(), 0])
    for region, value in best.items():
        x, y = on_map(*study.place(region))
        axes.scatter(
            x, y, s=70, c=[value], cmap=HEAT, vmin=least, vmax=most, edgecolor=INK, zorder=3
        )
        text = region_title(region) + (f"\n{value:.1f} %" if np.isfinite(value) else "")
        axes.annotate(text, (x, y), (8, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xlim(0, SIZE[0])
    axes.set_ylim(SIZE[1], 0)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(f"Overall accuracy of the best model, {scenario_title(scenario)}")
    signed(axes, study)
    return figure


def _places(study: Study) -> dict[int | None, float]:
    """Where each budget stands: a logarithmic axis, with no and all labels at its ends."""
    budgets = {budget for _, budget in study.scenarios}
    numbered = sorted(budget for budget in budgets if budget)
    logs = np.log10(numbered) if numbered else np.array([1.0])
    step = (logs[-1] - logs[0]) / max(len(logs) - 1, 1) or 1.0
    places: dict[int | None, float] = {0: logs[0] - step} if 0 in budgets else {}
    places |= dict(zip(numbered, logs.tolist(), strict=True)) if numbered else {}
    return places | ({None: logs[-1] + step} if None in budgets else {})


def _value(study: Study, region: str, model: str, scenario: Scenario, metric: str) -> float:
    estimate = study.at(region, model, scenario)
    return float(_scaled(estimate.value(metric), metric)) if estimate else np.nan


def _scaled(value, metric: str):
    return value if metric == "kappa" else 100 * value


def _axis(metric: str) -> str:
    return METRICS[metric] + ("" if metric == "kappa" else " (%)")


def _budget(budget: int | None) -> str:
    return "all" if budget is None else f"{budget:,}"
