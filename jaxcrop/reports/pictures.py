"""Example chips as small pictures that a page can hold: data URIs."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxcrop.crops import CROPS, IGNORE
from jaxcrop.reports.groups import Group
from jaxcrop.reports.study import Study
from jaxcrop.reports.sweep import Examples
from jaxcrop.sweeps.cells import CellResult

MOST_BYTES = 2_500_000
"""What all pictures of a page weigh at most: later chips are left out before it is exceeded."""

_IMAGE_SIDE, _CLASSES_SIDE = 256, 128
_CHIPS = 3


@dataclass(frozen=True)
class Guess:
    """What a group's first seed predicted for a chip, and the share of labelled pixels right."""

    group: Group
    classes: UInt8[np.ndarray, "h w"]
    right: float


@dataclass(frozen=True)
class Example:
    """A test chip of a region with its labels and the predictions of the families."""

    region: str
    chip_id: str
    rgb: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]
    guesses: tuple[Guess, ...]


def example_chips(study: Study) -> Iterator[Example]:
    """The kept chips, the first of each region before the second of any."""
    for number in range(_CHIPS):
        for region in study.regions:
            kept = study.sweep.examples.get(region)
            if kept is not None and number < len(kept.chip_ids):
                yield _example(study, region, kept, number)


def _example(study: Study, region: str, kept: Examples, number: int) -> Example:
    chip_id, label = kept.chip_ids[number], kept.label[number]
    guesses = []
    shown = {model.name for model in study.representatives}
    for group in study.groups:
        if group.region == region and group.model in shown and not group.trap:
            classes = _predicted(group.results[0], chip_id)
            if classes is not None and classes.shape == label.shape:
                labelled = label != IGNORE
                right = float((classes == label)[labelled].mean()) if labelled.any() else np.nan
                guesses.append(Guess(group, classes, right))
    return Example(region, chip_id, kept.rgb[number], label, tuple(guesses))


def _predicted(result: CellResult, chip_id: str) -> UInt8[np.ndarray, "h w"] | None:
    shown = result.chip_ids[: len(result.examples)]
    return result.examples[shown.index(chip_id)] if chip_id in shown else None


def class_colours(classes: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """A map of classes in their colours; what has no label is white."""
    return _PALETTE[np.minimum(classes, len(CROPS) - 1)]


def rgb_uri(rgb: UInt8[np.ndarray, "h w 3"]) -> str:
    """An image as WebP of at most 256 pixels a side."""
    image = Image.fromarray(rgb)
    image.thumbnail((_IMAGE_SIDE, _IMAGE_SIDE))
    return _uri(image, quality=80)


def classes_uri(classes: UInt8[np.ndarray, "h w"]) -> str:
    """A map of classes in their colours as lossless WebP, thinned to at most 128 pixels a side.

    What a model without training predicts is noise, which no format makes small.
    """
    step = -(-max(classes.shape) // _CLASSES_SIDE)
    return _uri(Image.fromarray(class_colours(classes[::step, ::step])), lossless=True)


_PALETTE = np.array([(255, 255, 255), *(crop.rgb for crop in CROPS[1:])], np.uint8)


def _uri(image: Image.Image, **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "webp", **options)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
