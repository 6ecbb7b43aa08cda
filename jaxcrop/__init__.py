"""Crop-type mapping from Sentinel-2 with pretrained backbones, in JAX.

    chips = jaxcrop.data.load("africa", split="train[:100]")
    model = jaxcrop.models.create("satlas", decoder="fpn", classes=6)
    classes = jaxcrop.load_run("runs/africa-satlas-resnet50-unet").predict(image)

Nothing is imported before it is used.
"""

from typing import TYPE_CHECKING

from jaxcrop.lazy import lazily

if TYPE_CHECKING:
    from jaxcrop import data, models, train, weights
    from jaxcrop.config import TrainConfig
    from jaxcrop.errors import InputError
    from jaxcrop.trained import TrainedModel, load_run

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "TrainConfig",
    "TrainedModel",
    "data",
    "load_run",
    "models",
    "train",
    "weights",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        **{name: f"jaxcrop.{name}" for name in ("data", "models", "train", "weights")},
        "InputError": "jaxcrop.errors",
        "TrainConfig": "jaxcrop.config",
        "TrainedModel": "jaxcrop.trained",
        "load_run": "jaxcrop.trained",
    },
)
