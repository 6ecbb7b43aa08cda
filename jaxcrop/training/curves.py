"""Learning curves of a run."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jaxcrop.errors import InputError
from jaxcrop.files import json_lines

_TRAINING, _VALIDATION, _SECOND = "#3b6ea8", "#c8501e", "#2f8f5b"


def learning_curves(run_dir: Path, *, synthetic: bool = False) -> Figure:
    """Draw losses, validation accuracies and learning rate over the steps of a run.

    The training loss is drawn thin, and again as its running mean; a line marks the step of the
    lowest validation loss, the best checkpoint. `synthetic` says so in the title. Raises InputError
    where `run_dir`/metrics.jsonl is missing or holds no step.
    """
    curves = _read(run_dir / "metrics.jsonl")
    figure = Figure(figsize=(8, 8), layout="constrained")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2.4, 1.2))

    if "train/loss" in curves:
        steps, values = curves["train/loss"]
        loss.plot(steps, values, color=_TRAINING, alpha=0.3, linewidth=0.8)
        loss.plot(steps, _smoothed(values), color=_TRAINING, label="training, running mean")
    _points(loss, curves, "validation/loss", "validation", _VALIDATION)
    loss.set_ylabel("loss")
    _points(accuracy, curves, "validation/overall_accuracy", "overall accuracy", _VALIDATION)
    average = "average over the classes present"
    _points(accuracy, curves, "validation/present_accuracy", average, _SECOND)
    accuracy.set_ylabel("validation accuracy")
    accuracy.set_ylim(0, 1.02)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if "train/learning_rate" in curves:
        rate.plot(*curves["train/learning_rate"], color="0.3", drawstyle="steps-post", marker=".")
        rate.set_yscale("log")
    rate.set_ylabel("learning rate")
    rate.set_xlabel("step")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))

    title = "learning curves"
    if "validation/loss" in curves:
        steps, values = curves["validation/loss"]
        best = int(steps[np.argmin(values)])
        for axes in (loss, accuracy, rate):
            axes.axvline(best, color="0.4", linestyle="--", linewidth=1, zorder=0)
        title = f"best checkpoint at step {best:,}, validation loss {values.min():.3f}"
    loss.set_title(f"{title} (synthetic data)" if synthetic else title)
    for axes in (loss, accuracy, rate):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False)
    figure.align_ylabels()
    return figure


def _points(axes, curves: dict, name: str, label: str, colour: str) -> None:
    if name in curves:
        axes.plot(*curves[name], color=colour, marker="o", markersize=4, label=label)


def _read(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The steps and values of every scalar that the log holds."""
    try:
        rows = json_lines(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): give the folder of a training run"
        ) from error
    points: dict[str, dict[int, float]] = {}
    for row in rows:
        step = row.pop("step")
        for name, value in row.items():
            points.setdefault(name, {})[step] = value
    if not points:
        raise InputError(f"{path} holds no step yet: let the run train before drawing its curves")
    return {
        name: (np.array(list(values)), np.array(list(values.values()), float))
        for name, values in points.items()
    }


def _smoothed(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The mean of each value and its neighbours, over a twentieth of the curve."""
    half = len(values) // 40
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low, high = np.maximum(place - half, 0), np.minimum(place + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)
