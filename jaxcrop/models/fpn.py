"""The feature pyramid, upsampling and head of SatlasPretrain and the paper (weights_spec 5.4, 5.6).

Initialised as torchvision initialises the pyramid, and after He the layers that ReLU follows.
"""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from jaxcrop.models.draws import Draws, kaiming_uniform_fan_in, uniform_fan_in
from jaxcrop.models.layers import Conv, ConvTranspose, logits_head
from jaxcrop.models.remat import Blockwise

WIDTH = 128
"""Channels of the pyramid and of everything after it."""


class FeaturePyramid(nnx.Module):
    """torchvision's `FeaturePyramidNetwork`, of which the finest map is returned.

    The logits need no other, so that of `layer`, one 3x3 convolution per map, only the first is
    computed and trained; the others are there for a published file to fill completely.
    """

    def __init__(self, channels: Sequence[int], *, rngs: Draws):
        def conv(in_channels: int, kernel_size: int) -> Conv:
            return Conv(
                in_channels,
                WIDTH,
                kernel_size,
                use_bias=True,
                kernel_init=uniform_fan_in,
                rngs=rngs,
            )

        self.inner = nnx.List(conv(c, 1) for c in channels)
        self.layer = nnx.List(conv(WIDTH, 3) for _ in channels)

    def __call__(self, features: Sequence[Float[Array, "b _h _w _c"]]) -> Float[Array, "b h w 128"]:
        *laterals, x = (inner(x) for inner, x in zip(self.inner, features, strict=True))
        for lateral in reversed(laterals):
            x = lateral + x.repeat(2, axis=1).repeat(2, axis=2)
        return self.layer[0](x)


class Upsample(nnx.Module):
    """3x3 convolution and a transposed 4x4 one that doubles the map, each followed by ReLU."""

    def __init__(self, *, rngs: Draws):
        self.conv = Conv(
            WIDTH, WIDTH, 3, use_bias=True, kernel_init=kaiming_uniform_fan_in, rngs=rngs
        )
        self.transpose = ConvTranspose(WIDTH, WIDTH, 4, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w 128"]) -> Float[Array, "b 2*h 2*w 128"]:
        return jax.nn.relu(self.transpose(jax.nn.relu(self.conv(x))))


class FPN(Blockwise):
    """Feature pyramid over the last four maps, upsampling to four times the finest, and head.

    `channels` are those of the pyramid, finest first; each map has half the size of the one before.
    Logits have the size of the image where the four maps have the strides 4 to 32.
    """

    wants_pyramid = True

    def __init__(self, channels: Sequence[int], num_classes: int, *, rngs: Draws):
        self.fpn = FeaturePyramid(channels[-4:], rngs=rngs)
        self.upsample = nnx.List(Upsample(rngs=rngs) for _ in range(2))
        hidden = Conv(WIDTH, WIDTH, 3, use_bias=True, kernel_init=kaiming_uniform_fan_in, rngs=rngs)
        self.head = nnx.List([hidden, logits_head(WIDTH, num_classes, 3, rngs=rngs)])

    def __call__(
        self, features: Sequence[Float[Array, "b _h _w _c"]]
    ) -> Float[Array, "b h w classes"]:
        x = self.fpn(features[-4:])
        for upsample in self.upsample:
            x = self.through(upsample, x)
        first, last = self.head
        return last(jax.nn.relu(first(x)))
