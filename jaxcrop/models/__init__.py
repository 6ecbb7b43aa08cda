"""Backbones, decoders, and the segmenter that joins them (Flax NNX, NHWC)."""

from typing import TYPE_CHECKING

from jaxcrop.lazy import lazily

if TYPE_CHECKING:
    from jaxcrop.models.segmenter import Segmenter
    from jaxcrop.training.beginning import create

__all__ = ["Segmenter", "create"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Segmenter": "jaxcrop.models.segmenter",
        # A model may begin with what a run has trained: it is made above the models.
        "create": "jaxcrop.training.beginning",
    },
)
