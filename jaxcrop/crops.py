"""The harmonised crop classes of arXiv 2409.09451 (class table: its released `harmonize_*.py`)."""

from typing import NamedTuple


class Crop(NamedTuple):
    """One harmonised class: its name and the RGB colour (0-255) that maps and plots draw it in."""

    name: str
    rgb: tuple[int, int, int]


CROPS = (
    Crop("ignore", (0, 0, 0)),
    Crop("maize", (255, 211, 0)),
    Crop("soybean", (37, 111, 0)),
    Crop("rice", (0, 168, 226)),
    Crop("wheat", (137, 96, 83)),
    Crop("other", (128, 128, 128)),
)

CLASS_NAMES = tuple(crop.name for crop in CROPS)

NUM_CLASSES = len(CROPS)
"""Width of the logits: class 0 has one too, as in the paper, though no pixel ever trains it."""

IGNORE, MAIZE, SOYBEAN, RICE, WHEAT, OTHER = range(NUM_CLASSES)
