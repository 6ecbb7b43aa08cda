"""Figures of one scenario: classes, confusions, calibration, chips."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxcrop.crops import CROPS
from jaxcrop.reports.figures.style import (
    HEAT,
    INK,
    SOFT,
    Look,
    legend,
    lines,
    panels,
    region_title,
    signed,
)  # fmt: skip
from jaxcrop.reports.findings import reference
from jaxcrop.reports.groups import Group, scenario_title
from jaxcrop.reports.pictures import Example, class_colours
from jaxcrop.reports.study import Study
from jaxcrop.training.calibration import CONFIDENCE, CORRECT, PIXELS, calibration_errors
from jaxcrop.training.metrics import per_class

_LEAST_SHARE = 0.0005
"""Share of the pixels below which a bin of confidence is not drawn."""


def here(study: Study, region: str) -> list[Group]:
    """The groups of a region at the scenario that figures show."""
    scenario = reference(study)
    groups = [
        group
        for group in study.groups
        if (group.region, group.scenario, group.trap) == (region, scenario, "")
    ]
    order = {model.name: number for number, model in enumerate(study.models)}
    return sorted(groups, key=lambda group: order[group.model])


def classes(study: Study) -> Figure:
    """The recall of each class, a panel for each region."""
    look, scenario = Look(study), reference(study)
    figure, grid = panels(len(study.regions), sharey=True)
    for region, axes in zip(study.regions, grid, strict=True):
        groups = here(study, region)
        if groups:
            truth = per_class(groups[0].confusions.sum(axis=0))["truth"]
            shown = np.flatnonzero(truth)
            width = 0.8 / len(groups)
            for number, group in enumerate(groups):
                estimate = study.at(region, group.model, scenario)
                value, low, high = 100 * estimate.classes["recall"][:, shown]
                axes.bar(
                    np.arange(len(shown)) + (number - (len(groups) - 1) / 2) * width,
                    value,
                    0.92 * width,
                    color=look.colour(group.model),
                    yerr=np.maximum([value - low, high - value], 0),
                    error_kw={"elinewidth": 1, "ecolor": INK},
                )
            axes.set_xticks(range(len(shown)), [CROPS[k].name for k in shown])
        axes.set_title(region_title(region))
        axes.set_ylim(0, 100)
        axes.grid(axis="y")
        axes.tick_params(length=0)
    grid[0].set_ylabel(f"Recall (%), {scenario_title(scenario)}")
    legend(figure, [look.key(model.name, ls="") for model in study.models])
    signed(grid[0], study)
    return figure


def confusion(study: Study, region: str) -> Figure:
    """The confusion matrix of each model, all seeds together, as shares of the true pixels."""
    groups = here(study, region)
    figure, grid = panels(len(groups), wide=3.6, tall=2.9)
    for group, axes in zip(groups, grid, strict=True):
        total = group.confusions.sum(axis=0)
        rows = np.flatnonzero(total.sum(axis=1))
        columns = np.flatnonzero(total.sum(axis=0) + total.sum(axis=1))
        share = 100 * total[np.ix_(rows, columns)] / total[rows].sum(axis=1, keepdims=True)
        axes.imshow(share, cmap=HEAT, vmin=0, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(share):
            colour = "white" if value > 67 else INK
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour)
        axes.set_xticks(range(len(columns)), [CROPS[k].name for k in columns])
        axes.set_yticks(range(len(rows)), [CROPS[k].name for k in rows])
        axes.set_xlabel("prediction")
        axes.set_title(lines(group.model))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    grid[0].set_ylabel("truth")
    figure.suptitle(f"{region_title(region)}, {scenario_title(reference(study))}", fontsize=10)
    signed(grid[0], study)
    return figure


def calibration(study: Study) -> Figure:
    """Accuracy over confidence, a panel for each region; the diagonal is perfect calibration."""
    look = Look(study)
    figure, grid = panels(len(study.regions), tall=3.1, sharey=True)
    for region, axes in zip(study.regions, grid, strict=True):
        axes.plot([0, 100], [0, 100], color=SOFT, ls="--", lw=0.8)
        for group in here(study, region):
            bins = sum(result.calibration for result in group.results)
            shown = bins[bins[:, PIXELS] > _LEAST_SHARE * bins[:, PIXELS].sum()]
            error = calibration_errors(bins)["expected"]
            axes.plot(
                *(100 * shown[:, column] / shown[:, PIXELS] for column in (CONFIDENCE, CORRECT)),
                color=look.colour(group.model),
                marker=look.marker(group.model),
                markersize=4,
                label=f"error {100 * error:.1f} %",
            )
        axes.legend(loc="upper left", fontsize=8)
        axes.set_title(region_title(region))
        axes.set_xlabel("confidence (%)")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.grid()
        axes.tick_params(length=0)
    grid[0].set_ylabel(f"right (%), {scenario_title(reference(study))}")
    legend(figure, [look.key(model.name) for model in study.models])
    signed(grid[0], study)
    return figure


def examples(study: Study, chips: list[Example]) -> Figure:
    """Chips of a region: image, truth, and what the first seed of each model predicts."""
    scenario = reference(study)
    models = [group.model for group in here(study, chips[0].region)]
    figure = Figure(figsize=(1.9 * (2 + len(models)), 2.1 * len(chips) + 0.9), layout="constrained")
    grid = figure.subplots(len(chips), 2 + len(models), squeeze=False)
    for row, chip in zip(grid, chips, strict=True):
        guesses = {g.group.model: g for g in chip.guesses if g.group.scenario == scenario}
        row[0].imshow(chip.rgb)
        row[0].set_title(chip.chip_id, fontsize=8, fontweight="normal")
        row[1].imshow(class_colours(chip.label), interpolation="nearest")
        row[1].set_title("truth", fontsize=8, fontweight="normal")
        for model, axes in zip(models, row[2:], strict=True):
            if model in guesses:
                axes.imshow(class_colours(guesses[model].classes), interpolation="nearest")
                title = f"{lines(model)}\n{guesses[model].right:.1%}"
                axes.set_title(title, fontsize=8, fontweight="normal")
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
    figure.legend(
        handles=[Patch(facecolor=np.divide(crop.rgb, 255), label=crop.name) for crop in CROPS[1:]],
        loc="outside lower center",
        ncols=len(CROPS) - 1,
    )
    region = region_title(chips[0].region)
    figure.suptitle(f"{region}, {scenario_title(scenario)}", fontsize=10)
    signed(grid[0, 0], study)
    return figure
