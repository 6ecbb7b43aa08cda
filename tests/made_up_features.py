"""Segmenters, and chips as arrays, whose features are looked at."""

import numpy as np
from made_up import fill

from jaxcrop.crops import NUM_CLASSES
from jaxcrop.data.bands import BandInput
from jaxcrop.data.index import index_of
from jaxcrop.features.maps import ChipSet
from jaxcrop.models.segmenter import abstract_segmenter

INPUT = BandInput(("B04", "B03", "B08"), (0.0, 1.0, 2.0), (3000.0, 4000.0, 5000.0), clip=False)

ARCHITECTURES = ["resnet18", "vit-s14"]
"""The ViT pads 256 pixels to 266."""


def segmenter(architecture: str, seed: int = 0):
    """A linear head over a backbone, with made-up weights."""
    model = abstract_segmenter(architecture, "linear", len(INPUT.bands), NUM_CLASSES)
    fill(model, seed)
    model.eval()
    return model


def three_chips(records) -> ChipSet:
    """The first three of the records."""
    index = index_of(records)
    return ChipSet(records, index, tuple(map(str, index.chip_id[:3])))


def images_and_labels(chips, band_input):
    """Their digital numbers and classes."""
    found = list(chips.chips(band_input))
    return np.stack([c.image for c in found]), np.stack([c.label for c in found])
