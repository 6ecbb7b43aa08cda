"""The learning curves of a recommendation as a picture."""

import numpy as np
from matplotlib.figure import Figure

from jaxcrop.probes.recommendation import METRICS, MORE, Recommendation


def curves_figure(found: Recommendation, title: str) -> Figure:
    """Draw each candidate's score by labelled chips, and the law of the first beyond them."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    budgets = np.array(found.budgets)
    for number, one in enumerate(found.standings):
        value, low, high = np.array(one.curve).T * 100
        (line,) = axes.plot(budgets, value, "o-", label=one.name, markersize=4)
        axes.fill_between(budgets, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        if number == 0 and found.law:
            beyond = np.geomspace(budgets[-1], budgets[-1] + MORE, 30)
            value, low, high = found.law.predict(beyond)
            axes.plot(beyond, 100 * (1 - value), "--", color=line.get_color())
            axes.fill_between(
                beyond,
                100 * (1 - high),
                100 * (1 - low),
                color=line.get_color(),
                alpha=0.1,
                linewidth=0,
            )
    axes.set_xscale("log")
    ticks = [*budgets, budgets[-1] + MORE] if found.law else budgets
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.set_xlabel("labelled chips")
    axes.set_ylabel(f"{METRICS[found.metric]} (%)")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(title, fontsize=10)
    return figure
