"""Records to batches: bands, reading, augmentation on the device, and synthetic regions."""

from typing import TYPE_CHECKING

from jaxcrop.lazy import lazily

if TYPE_CHECKING:
    from jaxcrop.data.augment import normalise
    from jaxcrop.data.bands import SENTINEL2_BANDS, BandInput
    from jaxcrop.data.loading import load
    from jaxcrop.data.reading import Chip

__all__ = ["SENTINEL2_BANDS", "BandInput", "Chip", "load", "normalise"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "SENTINEL2_BANDS": "jaxcrop.data.bands",
        "BandInput": "jaxcrop.data.bands",
        "Chip": "jaxcrop.data.reading",
        "load": "jaxcrop.data.loading",
        "normalise": "jaxcrop.data.augment",
    },
)
