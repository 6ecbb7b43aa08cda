"""The backbones by name."""

from collections.abc import Callable

from flax import nnx

from jaxcrop.errors import InputError
from jaxcrop.models.draws import Draws
from jaxcrop.models.resnet import resnet18, resnet50, resnet152
from jaxcrop.models.swin import swin_v2_b, swin_v2_t
from jaxcrop.models.vit import vit_b14, vit_b16, vit_h14, vit_l16, vit_s14, vit_s16

BACKBONES: dict[str, Callable[..., nnx.Module]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "resnet152": resnet152,
    "vit-s16": vit_s16,
    "vit-b16": vit_b16,
    "vit-l16": vit_l16,
    "vit-h14": vit_h14,
    "vit-s14": vit_s14,
    "vit-b14": vit_b14,
    "swin-v2-t": swin_v2_t,
    "swin-v2-b": swin_v2_b,
}
"""Each takes the number of bands and `rngs`, and makes the module of that architecture.

A backbone maps an image (b, h, w, band) to feature maps, finest first, whose `channels` and
`strides` it states. It takes every image whose sides are multiples of its largest stride.
"""


def create_backbone(architecture: str, in_channels: int, *, rngs: Draws) -> nnx.Module:
    """Make a backbone for images of `in_channels` bands; raises InputError for an unknown name."""
    if architecture not in BACKBONES:
        raise InputError(f"unknown backbone {architecture!r}: choose one of {', '.join(BACKBONES)}")
    return BACKBONES[architecture](in_channels, rngs=rngs)
