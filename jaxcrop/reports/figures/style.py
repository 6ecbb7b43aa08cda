"""How the figures look: the page's colours and markers, in print."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxcrop.regions import REGIONS
from jaxcrop.reports.groups import region_name
from jaxcrop.reports.study import Study

COLOURS = (
    "#0068a8", "#cf5a00", "#007f5f", "#9c4689", "#96700a", "#5d666d", "#3a87c2", "#b23a48",
)  # fmt: skip
"""One for each model, apart for colour-blind eyes; the page has the same (page/style.css)."""

MARKERS = ("o", "s", "^", "D", "v", "x")
INK, SOFT, RULE = "#1d2327", "#58626a", "#dfe3e1"
HEAT = LinearSegmentedColormap.from_list("heat", ["#eef3f0", "#06474c"])
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa3a8",
    "axes.labelcolor": SOFT,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxcrop",
    "text.parse_math": False,
}


class Look:
    """The colour and marker of each model of a study."""

    def __init__(self, study: Study):
        self.names = [model.name for model in study.models]

    def colour(self, model: str) -> str:
        """The model's colour."""
        return COLOURS[self.names.index(model) % len(COLOURS)]

    def marker(self, model: str) -> str:
        """The model's marker."""
        return MARKERS[self.names.index(model) % len(MARKERS)]

    def key(self, model: str, **changes) -> Line2D:
        """The model's entry of a legend."""
        look = {"color": self.colour(model), "marker": self.marker(model), "markersize": 5}
        return Line2D([], [], label=model, **{**look, **changes})


def region_title(region: str) -> str:
    """A region's name, dataset and year."""
    known = REGIONS.get(region)
    return f"{region_name(region)} ({known.dataset} {known.year})" if known else region


def lines(words: str, most: int = 24) -> str:
    """Words on lines of at most so many characters."""
    return textwrap.fill(words, most)


def panels(count: int, *, wide: float = 3.4, tall: float = 2.8, most: int = 3, **options):
    """A figure of `count` panels, `most` of them in a row; the axes are a flat list."""
    columns = min(count, most)
    rows = -(-count // columns)
    figure = Figure(figsize=(wide * columns, tall * rows + 0.5), layout="constrained")
    figure.get_layout_engine().set(wspace=0.04, hspace=0.04)
    grid = figure.subplots(rows, columns, squeeze=False, **options).ravel().tolist()
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count]


def legend(figure: Figure, handles: Sequence, columns: int = 5) -> None:
    """The legend of a whole figure, above its panels."""
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, fontsize=8.5)


def signed(axes: Axes, study: Study) -> None:
    """Say below a figure what its data and weights are, where a reader might think otherwise."""
    words = [
        word
        for share, word in (
            (study.sweep.synthetic_share, "synthetic data"),
            (study.sweep.random_share, "random weights"),
        )
        if share > 0
    ]
    if words:
        axes.figure.supxlabel(", ".join(words), x=0.01, ha="left", fontsize=8, color="#8a5a00")
