"""The pictures of a dataset card: classes, field sizes, places, bands."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxcrop.crops import CROPS, IGNORE
from jaxcrop.data.index import ChipIndex
from jaxcrop.data.splits import Partition

if TYPE_CHECKING:
    from jaxcrop.data.card import Fields

_SPLIT_COLOURS = {"train": "#4477aa", "validation": "#ccbb44", "test": "#ee6677"}

# fmt: off
_CONTINENTS = (
    ((-168, 66), (-156, 71), (-128, 70), (-95, 72), (-82, 73), (-62, 60), (-53, 47), (-66, 44),
     (-76, 35), (-81, 25), (-84, 30), (-97, 28), (-97, 20), (-88, 21), (-83, 10), (-78, 8), (-95,
     16), (-105, 20), (-113, 31), (-124, 40), (-124, 48), (-135, 58), (-152, 60), (-165, 55)),
    ((-78, 8), (-72, 12), (-60, 9), (-50, 0), (-35, -6), (-39, -16), (-48, -27), (-58, -35), (-65,
     -42), (-69, -53), (-74, -52), (-73, -38), (-70, -19), (-81, -5)),
    ((-55, 82), (-22, 82), (-20, 71), (-43, 60), (-53, 66), (-70, 77)),
    ((-9, 37), (-9, 43), (-1, 44), (-4, 48), (7, 53), (9, 57), (12, 55), (20, 55), (29, 60), (22,
     60), (21, 64), (17, 61), (17, 57), (11, 59), (5, 59), (5, 62), (14, 68), (26, 71), (41, 67),
     (60, 69), (80, 73), (105, 77), (130, 72), (160, 70), (180, 69), (178, 62), (163, 60), (160,
     52), (155, 59), (136, 54), (140, 48), (128, 40), (126, 35), (121, 40), (120, 35), (122, 30),
     (115, 22), (108, 20), (109, 12), (105, 9), (100, 13), (104, 2), (98, 9), (94, 17), (89, 22),
     (80, 15), (77, 8), (72, 20), (66, 25), (57, 26), (48, 30), (52, 24), (59, 22), (45, 13), (35,
     28), (35, 36), (27, 37), (26, 40), (23, 37), (19, 42), (13, 45), (18, 40), (16, 38), (10,
     44), (3, 43), (-1, 37), (-5, 36)),
    ((-17, 15), (-17, 21), (-6, 36), (10, 37), (20, 31), (32, 31), (43, 12), (51, 12), (40, -3),
     (40, -15), (33, -26), (26, -34), (18, -34), (12, -17), (13, -5), (9, 4), (-8, 4)),
    ((114, -22), (122, -18), (131, -12), (136, -12), (136, -16), (141, -17), (143, -11), (153,
     -26), (150, -37), (144, -38), (138, -35), (131, -31), (115, -34)),
    ((-5, 50), (1, 51), (0, 54), (-2, 58), (-5, 58)),
    ((130, 31), (140, 35), (142, 45), (139, 38)),
    ((44, -25), (47, -25), (50, -15), (44, -17)),
    ((96, 5), (104, -5), (105, -6), (100, 0)),
    ((109, 1), (117, 7), (116, -4)),
    ((132, -1), (150, -10), (138, -8)),
    ((166, -46), (178, -38), (173, -35), (174, -41)),
)
# fmt: on
"""The continents drawn by hand, some degrees off: they tell where on Earth one looks, no more."""


def pictures(
    card: dict, index: ChipIndex, partition: Partition, fields: "Fields"
) -> dict[str, Figure]:
    """All pictures of the card by file name; each says so where data are synthetic."""
    figures = {
        "class_balance.png": _class_balance(card),
        "field_sizes.png": _field_sizes(fields),
        "locations.png": _locations(index, partition),
        "bands.png": _bands(card),
    }
    if card["synthetic"]:
        for figure in figures.values():
            figure.suptitle("synthetic data", fontsize=10, color="0.4")
    return figures


def _class_balance(card: dict) -> Figure:
    """Bars of the share that each class has of the labelled pixels of each split."""
    names = [
        crop.name
        for crop in CROPS[IGNORE + 1 :]
        if any(card["classes"][crop.name]["pixels"].values())
    ]
    splits = list(card["chips"])
    figure = Figure(
        figsize=(7, 1 + 0.25 * max(len(names), 1) * (len(splits) + 1)), layout="constrained"
    )
    axes = figure.add_subplot()
    height = 0.8 / len(splits)
    for number, split in enumerate(splits):
        pixels = np.array([card["classes"][name]["pixels"][split] for name in names])
        shares = pixels / max(pixels.sum(), 1)
        at = np.arange(len(names)) + (number - (len(splits) - 1) / 2) * height
        axes.barh(at, shares, 0.9 * height, color=_SPLIT_COLOURS[split], label=split)
        for y, share, count in zip(at, shares, pixels, strict=True):
            said = f"{share:.1%}" if count else "none"
            axes.text(share + 0.008, y, said, va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    axes.set_xticks(np.arange(0, 1.1, 0.2), [f"{tick:.0%}" for tick in np.arange(0, 1.1, 0.2)])
    axes.set_xlabel("share of labelled pixels")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _field_sizes(fields: "Fields") -> Figure:
    """How much of each class's area lies in fields of which size, on a logarithmic axis."""
    crops = [crop for crop in range(IGNORE + 1, len(CROPS)) if (fields.crop == crop).any()]
    edges = np.arange(-3, 6.01, 0.2)
    sizes = np.log10(fields.hectares)
    if len(sizes):
        edges = edges[(edges > sizes.min() - 0.2) & (edges < sizes.max() + 0.2)]
    figure = Figure(figsize=(7, 1 + 1.15 * max(len(crops), 1)), layout="constrained")
    rows = figure.subplots(max(len(crops), 1), sharex=True, squeeze=False)[:, 0]
    for axes, crop in zip(rows, crops, strict=False):
        among = fields.crop == crop
        total = fields.hectares[among].sum()
        drawn = [among & ~fields.cut, among & fields.cut]
        colour = np.array(CROPS[crop].rgb) / 255
        axes.hist(
            [sizes[part] for part in drawn],
            edges,
            weights=[fields.hectares[part] / total for part in drawn],
            stacked=True,
            color=[colour, 0.65 + 0.35 * colour],
            edgecolor="white",
            linewidth=0.5,
        )
        axes.set_ylabel(CROPS[crop].name)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.spines[["top", "right"]].set_visible(False)
    ticks = np.arange(np.ceil(edges[0]), np.floor(edges[-1]) + 1)
    rows[-1].set_xticks(ticks, [f"{10**tick:,g}" for tick in ticks])
    rows[-1].set_xlabel("hectares")
    rows[0].set_title("share of the class's area in fields of this size", fontsize=10)
    kinds = {"whole": "0.5", "cut by the chip's edge": "0.82"}
    figure.legend(
        handles=[Patch(color=colour, label=label) for label, colour in kinds.items()],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    return figure


def _locations(index: ChipIndex, partition: Partition) -> Figure:
    """The chips on the Earth, and closer."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    world, near = figure.subplots(1, 2, width_ratios=(1.35, 1))
    (west, east), (south, north) = _square(index)
    for axes in (world, near) if north - south > 20 else (world,):  # closer they would mislead
        for outline in _CONTINENTS:
            axes.fill(*zip(*outline, strict=True), color="0.9", zorder=0)
    for split, ids in partition.items():
        rows = index.rows(ids)
        near.scatter(
            index.lon[rows], index.lat[rows], 12, _SPLIT_COLOURS[split], linewidths=0,
            label=f"{split} {len(rows):,}",
        )  # fmt: skip
    world.plot([west, east, east, west, west], [south, south, north, north, south], color="#aa3377")
    world.plot((west + east) / 2, (south + north) / 2, "+", color="#aa3377", ms=9)
    world.set(xlim=(-180, 180), ylim=(-60, 84), aspect="equal")
    world.set_xticks(range(-180, 181, 60))
    world.set_yticks(range(-60, 61, 30))
    near.set(xlim=(west, east), ylim=(south, north), aspect=(east - west) / (north - south))
    near.locator_params(nbins=5)
    near.ticklabel_format(useOffset=False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, markerscale=1.5)
    for axes in (world, near):
        axes.grid(color="0.8", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter("{x:g}°")
        axes.yaxis.set_major_formatter("{x:g}°")
        axes.tick_params(labelsize=8)
    return figure


def _square(index: ChipIndex) -> tuple[tuple[float, float], tuple[float, float]]:
    """West and east, south and north of a square on the ground that holds all chips."""
    middle = [(ends.min() + ends.max()) / 2 for ends in (index.lon, index.lat)]
    narrowing = np.cos(np.radians(middle[1]))
    half = 0.55 * max(np.ptp(index.lon) * narrowing, np.ptp(index.lat)) + 0.02
    return tuple(
        (centre - half / shrunk, centre + half / shrunk)
        for centre, shrunk in zip(middle, (narrowing, 1), strict=True)
    )


def _bands(card: dict) -> Figure:
    """The range of each band's digital numbers from the 2nd to the 98th percentile."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    rows = card["bands"]
    at = np.arange(len(rows))
    p2, median, p98, mean = (
        np.array([row[key] for row in rows.values()]) for key in ("p2", "median", "p98", "mean")
    )
    axes.bar(at, p98 - p2, 0.5, p2, color="#bbccdd", label="2 % to 98 %")
    axes.plot(at, median, "_", color="#225588", ms=18, mew=2, label="median")
    axes.plot(at, mean, "o", color="#aa3377", ms=4, label="mean")
    axes.set_xticks(at, list(rows), fontsize=9)
    axes.set_ylabel("digital number")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure
