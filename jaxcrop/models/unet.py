"""The U-Net decoder of `segmentation_models_pytorch` that the paper trains (weights_spec 5.5)."""

from collections.abc import Sequence

import jax
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float

from jaxcrop.models.layers import (
    BatchNorm,
    Conv,
    convolve,
    convolve_upsampled,
    kaiming_uniform_fan_in,
)


class ConvNormRelu(nnx.Module):
    """3x3 convolution without bias, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        self.conv = Conv(
            in_channels, out_channels, 3, kernel_init=kaiming_uniform_fan_in, rngs=rngs
        )
        self.bn = BatchNorm(out_channels, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        return jax.nn.relu(self.bn(self.conv(x)))


class DecoderBlock(nnx.Module):
    """Upsample by 2 (nearest), append the skip connection, convolve twice.

    The first convolution is computed as a sum over its two inputs, which are never made one.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        self.conv1 = ConvNormRelu(in_channels + skip_channels, out_channels, rngs=rngs)
        self.conv2 = ConvNormRelu(out_channels, out_channels, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w i"], skip: Float[Array, "b 2*h 2*w s"] | None
    ) -> Float[Array, "b 2*h 2*w o"]:
        kernel = self.conv1.conv.kernel[...]
        channels = x.shape[-1]
        x = convolve_upsampled(x, kernel[:, :, :channels])
        if skip is not None:
            x = x + convolve(skip, kernel[:, :, channels:], 1, [(1, 1), (1, 1)])
        return self.conv2(jax.nn.relu(self.conv1.bn(x)))


class UNet(nnx.Module):
    """U-Net decoder and segmentation head over a pyramid that starts at stride 2.

    `encoder_channels` are the channels of the pyramid, finest first. The logits have the size of
    the image.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        num_classes: int,
        *,
        channels: Sequence[int] = (256, 128, 64, 32, 16),
        rngs: nnx.Rngs,
    ):
        deepest, *skips = reversed(encoder_channels)
        inputs = (deepest, *channels[:-1])
        self.blocks = nnx.List(
            DecoderBlock(i, s, o, rngs=rngs)
            for i, s, o in zip(inputs, (*skips, 0), channels, strict=True)
        )
        self.head = Conv(
            channels[-1],
            num_classes,
            3,
            use_bias=True,
            kernel_init=initializers.xavier_uniform(),
            rngs=rngs,
        )

    def __call__(
        self, features: Sequence[Float[Array, "b _h _w _c"]]
    ) -> Float[Array, "b h w classes"]:
        x, *skips = reversed(features)
        for block, skip in zip(self.blocks, (*skips, None), strict=True):
            x = block(x, skip)
        return self.head(x)
