"""The U-Net decoder of `segmentation_models_pytorch` that the paper trains (weights_spec 5.5)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxcrop.models.convolutions import convolve, convolve_upsampled
from jaxcrop.models.draws import Draws
from jaxcrop.models.layers import ConvNormRelu, logits_head
from jaxcrop.models.remat import Blockwise

WIDTHS = (256, 128, 64, 32, 16)
"""Channels after each block, deepest first."""


class DecoderBlock(nnx.Module):
    """Upsample by 2 (nearest), append the skip connection, convolve twice.

    The first convolution is computed as a sum over its two inputs, which are never made one.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, *, rngs: Draws):
        self.conv1 = ConvNormRelu(in_channels + skip_channels, out_channels, 3, rngs=rngs)
        self.conv2 = ConvNormRelu(out_channels, out_channels, 3, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w i"], skip: Float[Array, "b 2*h 2*w s"] | None
    ) -> Float[Array, "b 2*h 2*w o"]:
        kernel = self.conv1.conv.kernel[...].astype(x.dtype)
        below, beside = jnp.split(kernel, [x.shape[-1]], axis=2)
        x = convolve_upsampled(x, below)
        if skip is not None:
            x = x + convolve(skip, beside, 1, ((1, 1), (1, 1)))
        return self.conv2(jax.nn.relu(self.conv1.bn(x)))


class UNet(Blockwise):
    """U-Net decoder and segmentation head over a pyramid that ends at stride 32.

    `channels` are those of the pyramid, finest first; each map has half the size of the one before.
    Five blocks double the coarsest map to the size of the image, with as many skip connections as
    there are finer maps: four over a ResNet, three over a pyramid that starts at stride 4.
    """

    wants_pyramid = True

    def __init__(self, channels: Sequence[int], num_classes: int, *, rngs: Draws):
        deepest, *skips = reversed(channels)
        inputs = (deepest, *WIDTHS[:-1])
        skips += [0] * (len(WIDTHS) - len(skips))
        self.blocks = nnx.List(
            DecoderBlock(i, s, o, rngs=rngs) for i, s, o in zip(inputs, skips, WIDTHS, strict=True)
        )
        self.head = logits_head(WIDTHS[-1], num_classes, 3, rngs=rngs)

    def __call__(
        self, features: Sequence[Float[Array, "b _h _w _c"]]
    ) -> Float[Array, "b h w classes"]:
        x, *skips = reversed(features)
        skips += [None] * (len(self.blocks) - len(skips))
        for block, skip in zip(self.blocks, skips, strict=True):
            x = self.through(block, x, skip)
        return self.head(x)
