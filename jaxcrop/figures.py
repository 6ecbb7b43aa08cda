"""Pictures: confusion matrices, and maps beside their scenes."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxcrop.crops import CLASS_NAMES, CROPS
from jaxcrop.data.bands import BandInput
from jaxcrop.errors import InputError

TRUE_COLOUR = BandInput.scaled(("B04", "B03", "B02"), clip=True)
LARGEST_SIDE = 1000
"""Pixels that a scene is thinned to before it is drawn."""


def check_picture_path(path: Path) -> None:
    """Raise InputError unless a picture can be written to `path`, before the work that makes it."""
    if path.suffix[1:].lower() not in Figure().canvas.get_supported_filetypes():
        raise InputError(f"{path} names no picture format: give a name that ends in .png or .pdf")
    try:
        tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent).cleanup()
    except OSError as error:
        raise _unwritable(path, error) from error


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the path's suffix names; it appears whole or not at all.

    Raises InputError where the path cannot be written or names no format.
    """
    check_picture_path(path)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            # The same figure is the same file: an SVG would hold the time.
            undated = {"Date": None} if path.suffix.lower() == ".svg" else None
            figure.savefig(draft, dpi=150, metadata=undated)
            os.replace(draft, path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} cannot be written ({error.strerror}): give a path in an existing folder that may "
        "be written to"
    )


def confusion_figure(
    confusion: Integer[np.ndarray, "k k"],
    class_names: Sequence[str] = CLASS_NAMES,
    *,
    synthetic: bool = False,
) -> Figure:
    """Draw a confusion matrix (rows truth, columns prediction) as shares of the true pixels.

    Every cell says the share of its row and the count of pixels. Class 0 (ignore) has no row, and
    a column only if it was predicted. `synthetic` says so in the title.
    """
    confusion = np.asarray(confusion)
    columns = np.arange(0 if confusion[:, 0].any() else 1, len(confusion))
    counts = confusion[1:, columns]
    total = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(total, 1)

    figure = Figure(
        figsize=(1.6 + 1.15 * len(columns), 1.6 + 0.85 * len(counts)), layout="constrained"
    )
    axes = figure.add_subplot()
    axes.imshow(np.where(total > 0, share, np.nan), cmap="YlGn", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        if total[row]:
            colour = "white" if share[row, column] > 0.6 else "black"
            middle = {"ha": "center", "color": colour}
            axes.text(column, row, f"{share[row, column]:.1%}", va="bottom", fontsize=11, **middle)
            axes.text(column, row + 0.08, f"{count:,}", va="top", fontsize=8, **middle)
        else:
            axes.text(column, row, "–", ha="center", va="center", color="0.5")
    axes.set_xticks(range(len(columns)), [class_names[column] for column in columns])
    axes.set_yticks(range(len(counts)), class_names[1:])
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(columns) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(counts) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    pixels = counts.sum()
    title = (
        f"{np.trace(confusion) / pixels:.1%} of {pixels:,} pixels right" if pixels else "no pixels"
    )
    axes.set_title(f"{title} (synthetic data)" if synthetic else title)
    return figure


def map_figure(
    scene: Path,
    crop_map: Path,
    *,
    bands: Sequence[str] | None = None,
    offset: int = 0,
    truth: Path | None = None,
    title: str = "",
) -> Figure:
    """Draw a scene in true colour beside its crop map and, where given, the true classes.

    `bands` and `offset` are those of `jaxcrop.mapping.raster.open_scene`; map and truth are rasters
    of the classes of `jaxcrop.crops` with the scene's size. `title` stands above all panels. Large
    scenes are thinned. Raises InputError for a scene without B04, B03 and B02, or another
    size.
    """
    from jaxcrop.mapping.raster import open_scene  # noqa: PLC0415 -- confusion needs no rasterio

    with open_scene(scene, TRUE_COLOUR, bands, offset) as opened:
        size = opened.source.shape
        shape = tuple(-(-side // -(-max(size) // LARGEST_SIDE)) for side in size)
        panels = {"scene": stretched(*opened.read(0, 0, *size, shape))}
    classes = {"crop map": crop_map, **({} if truth is None else {"truth": truth})}
    classes = {title: _thinned_classes(path, size, shape) for title, path in classes.items()}
    palette = np.array([(255, 255, 255), *(crop.rgb for crop in CROPS[1:])], np.uint8)
    panels.update({title: palette[values] for title, values in classes.items()})

    # Panels 4.5 inches long, but room for the legend's line and the titles.
    height, width = (4.5 * length / max(shape) for length in shape)
    figure = Figure(
        figsize=(max(width * len(panels), 7), max(height, 0.5) + 0.8), layout="constrained"
    )
    for axes, (panel, image) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True
    ):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(panel)
        axes.set_xticks([])
        axes.set_yticks([])
    if title:
        figure.suptitle(title)
    shown = np.unique(np.concatenate([values.ravel() for values in classes.values()]))
    names = ["no data" if truth is None else "no data or label", *(crop.name for crop in CROPS[1:])]
    figure.legend(
        handles=[Patch(facecolor=palette[k] / 255, edgecolor="0.6", label=names[k]) for k in shown],
        loc="outside lower center",
        ncols=len(shown),
        frameon=False,
    )
    return figure


def stretched(dn: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Stretch each band between its 2nd and 98th percentile; white where there is no data."""
    if not valid.any():
        return np.ones(dn.shape)
    low, high = np.percentile(dn[valid], (2, 98), axis=0)
    stretched = np.clip((dn - low) / np.maximum(high - low, 1), 0, 1)
    return np.where(valid[..., None], stretched**0.7, 1)  # fields are dark beside towns and sand


def _thinned_classes(path: Path, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    import rasterio  # noqa: PLC0415

    try:
        with rasterio.open(path) as source:
            found, values = source.shape, source.read(1, out_shape=shape)
    except rasterio.errors.RasterioIOError as error:
        raise InputError(f"{path} cannot be read as a raster: give a complete GeoTIFF") from error
    if found != size:
        raise InputError(
            f"{path} has {found[0]} x {found[1]} pixels but the scene {size[0]} x {size[1]}: "
            "give the map of this scene"
        )
    if values.max() >= len(CROPS):
        raise InputError(
            f"{path} holds class {values.max()} but ours are 0 to {len(CROPS) - 1}: "
            "give a map of the harmonised classes"
        )
    return values
