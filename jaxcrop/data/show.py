"""A picture of one chip: its dates in true and false colour beside its classes."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxcrop.crops import CROPS, NUM_CLASSES
from jaxcrop.data.bands import BandInput
from jaxcrop.data.index import text
from jaxcrop.errors import InputError
from jaxcrop.figures import check_picture_path, save_figure, stretched

if TYPE_CHECKING:
    from jaxcrop.data.reading import Records

_COMPOSITES = {
    "true colour (B04, B03, B02)": ("B04", "B03", "B02"),
    "false colour (B08, B04, B03)": ("B08", "B04", "B03"),
}

_PALETTE = np.array([(255, 255, 255), *(crop.rgb for crop in CROPS[1:])], np.uint8)


def show(records: "Records", split: str, position: int, out: Path) -> None:
    """Draw the chip at `position` of `split` to the picture `out`, as `chip_figure` does."""
    check_picture_path(out)
    save_figure(chip_figure(records, split, position), out)


def chip_figure(records: "Records", split: str, position: int) -> Figure:
    """Draw a chip: a row for each date in true and false colour; its classes beside the first.

    Each composite stretches its bands between their 2nd and 98th percentile; pixels without data
    and without a label are white. Raises InputError where there is no such chip or a band lacks.
    """
    chips = records.raw(split)
    if not 0 <= position < len(chips):
        raise InputError(
            f"{records.folder} has {len(chips)} chips in {split}, none at {position}: give 0 to "
            f"{len(chips) - 1}"
        )
    record = chips[position]
    image, label = record["image"], record["label"]
    valid = image.any(axis=-1)
    days = len(image)
    figure = Figure(figsize=(10.2, 3.1 * days + 1.1), layout="constrained")
    grid = figure.add_gridspec(days, 3)
    for column, (name, bands) in enumerate(_COMPOSITES.items()):
        wanted = BandInput.scaled(bands)
        indices = wanted.indices(records.bands, str(records.folder))
        for day in range(days):
            axes = figure.add_subplot(grid[day, column])
            axes.imshow(stretched(image[day][..., indices], valid[day]))
            if day == 0:
                axes.set_title(name, fontsize=10)
            if column == 0:
                axes.set_ylabel(_caption(record, day), fontsize=9)
    axes = figure.add_subplot(grid[0, 2])
    axes.imshow(_PALETTE[label], interpolation="nearest")
    axes.set_title("classes", fontsize=10)
    for axes in figure.axes:
        axes.set_xticks([])
        axes.set_yticks([])
    counts = np.bincount(label.ravel(), minlength=NUM_CLASSES)
    names = ["no label", *(crop.name for crop in CROPS[1:])]
    figure.legend(
        handles=[
            Patch(
                facecolor=_PALETTE[k] / 255,
                edgecolor="0.6",
                label=f"{names[k]} {counts[k] / label.size:.1%}",
            )
            for k in np.flatnonzero(counts)
        ],
        loc="outside lower center",
        ncols=NUM_CLASSES,
        frameon=False,
    )
    drawn = " (synthetic data)" if records.synthetic else ""
    chip_id = text(record["chip_id"])
    figure.suptitle(f"{records.name}, {split} {position}: chip {chip_id}{drawn}", fontsize=12)
    return figure


def _caption(record: dict, day: int) -> str:
    """The date, and where they are known the shares that cannot be used."""
    shares = {"cloudy": float(record["cloudy"][day]), "no data": float(record["nodata"][day])}
    known = [f"{share:.0%} {name}" for name, share in shares.items() if not np.isnan(share)]
    return "\n".join([text(record["dates"][day]), ", ".join(known)])
