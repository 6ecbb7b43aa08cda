"""The reliability diagram of a model: is it right as often as it is confident?"""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from jaxcrop.training.calibration import CONFIDENCE, CORRECT, PIXELS, calibration_errors

_ACCURACY, _OVER, _UNDER = "#9dbad8", "#c8501e", "#2f6f4f"


def reliability_figure(bins: Float[np.ndarray, "bins 3"], *, synthetic: bool = False) -> Figure:
    """Draw accuracy over confidence, and below it the share of the pixels in each bin.

    `bins` are those of `jaxcrop.training.calibration`. A bar is the accuracy of a bin; hatched is
    what lies between it and the bin's mean confidence. The title says the expected calibration
    error; `synthetic` says so there too (Guo et al. 2017, arXiv 1706.04599, figure 4).
    """
    bins = np.asarray(bins, np.float64)
    edges = np.linspace(0, 1, len(bins) + 1)
    held = bins[:, PIXELS] > 0
    pixels = bins[held, PIXELS]
    accuracy = bins[held, CORRECT] / pixels
    gap = bins[held, CONFIDENCE] / pixels - accuracy
    place = {"x": edges[:-1][held], "width": 1 / len(bins), "align": "edge"}

    figure = Figure(figsize=(5.6, 6.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    above.bar(**place, height=accuracy, color=_ACCURACY, edgecolor="white", label="accuracy")
    for name, colour, height in (
        ("overconfident", _OVER, gap.clip(min=0)),
        ("underconfident", _UNDER, gap.clip(max=0)),
    ):
        look = {"color": (colour, 0.15), "edgecolor": colour, "linewidth": 0, "hatch": "////"}
        above.bar(**place, height=height, bottom=accuracy, label=name, **look)
    above.plot([0, 1], [0, 1], color="0.2", linestyle="--", linewidth=1, label="calibrated")
    above.set_ylim(0, 1)
    above.set_ylabel("accuracy")
    if len(pixels):
        above.legend(loc="upper left", frameon=False)
    below.bar(**place, height=pixels / max(pixels.sum(), 1), color="0.55", edgecolor="white")
    below.set_xlim(0, 1)
    below.set_ylim(0, None if len(pixels) else 1)
    below.set_ylabel("share of pixels")
    below.set_xlabel("confidence, the largest probability of a pixel")
    for axis in (above.yaxis, below.yaxis, below.xaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(color="0.92")
    error = calibration_errors(bins)["expected"]
    title = f"expected calibration error {error:.1%}" if len(pixels) else "no pixels"
    above.set_title(f"{title} (synthetic data)" if synthetic else title)
    figure.align_ylabels()
    return figure
