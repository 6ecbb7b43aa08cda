"""ResNet backbones with the numerics of timm and torchvision, which agree (weights_spec 5.1)."""

from collections.abc import Sequence
from functools import partial

import jax
from flax import nnx
from jaxtyping import Array, Float

from jaxcrop.models.draws import Draws
from jaxcrop.models.layers import BatchNorm, Conv
from jaxcrop.models.primitives import joined, max_pool
from jaxcrop.models.remat import Blockwise
from jaxcrop.models.sizes import check_size


class Downsample(nnx.Module):
    """The projection on a block's shortcut where its shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, rngs: Draws):
        self.conv = Conv(in_channels, out_channels, 1, stride, rngs=rngs)
        self.bn = BatchNorm(out_channels, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        return self.bn(self.conv(x))


def _projection(in_channels: int, out_channels: int, stride: int, rngs: Draws) -> Downsample | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return Downsample(in_channels, out_channels, stride, rngs=rngs)


class BasicBlock(nnx.Module):
    """3x3, 3x3 residual block of ResNet-18; the first convolution carries the stride."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, *, rngs: Draws):
        self.conv1 = Conv(in_channels, width, 3, stride, rngs=rngs)
        self.bn1 = BatchNorm(width, rngs=rngs)
        self.conv2 = Conv(width, width, 3, rngs=rngs)
        self.bn2 = BatchNorm(width, rngs=rngs)
        self.downsample = _projection(in_channels, width, stride, rngs)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = jax.nn.relu(self.bn1(self.conv1(x)))
        return joined(self.bn2(self.conv2(x)), shortcut)


class Bottleneck(nnx.Module):
    """1x1, 3x3, 1x1 residual block; the 3x3 convolution carries the stride ("v1.5")."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, *, rngs: Draws):
        out_channels = width * self.expansion
        self.conv1 = Conv(in_channels, width, 1, rngs=rngs)
        self.bn1 = BatchNorm(width, rngs=rngs)
        self.conv2 = Conv(width, width, 3, stride, rngs=rngs)
        self.bn2 = BatchNorm(width, rngs=rngs)
        self.conv3 = Conv(width, out_channels, 1, rngs=rngs)
        self.bn3 = BatchNorm(out_channels, rngs=rngs)
        self.downsample = _projection(in_channels, out_channels, stride, rngs)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = jax.nn.relu(self.bn1(self.conv1(x)))
        x = jax.nn.relu(self.bn2(self.conv2(x)))
        return joined(self.bn3(self.conv3(x)), shortcut)


class ResNet(Blockwise):
    """ResNet without classifier; returns its pyramid of five feature maps, finest first.

    `block` is the kind of residual block, `blocks` how many each stage has and `width` that of the
    first stage's; `channels` and `strides` describe the maps returned. Module and parameter names
    follow torchvision's, so that converted names read alike. Raises ValueError for an image whose
    sides are no multiples of 32.
    """

    strides = (2, 4, 8, 16, 32)

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        blocks: Sequence[int],
        in_channels: int,
        *,
        width: int = 64,
        rngs: Draws,
    ):
        self.conv1 = Conv(in_channels, width, 7, 2, rngs=rngs)
        self.bn1 = BatchNorm(width, rngs=rngs)
        channels, widths = width, (width, 2 * width, 4 * width, 8 * width)
        for stage, (count, of_stage) in enumerate(zip(blocks, widths, strict=True), start=1):
            layers = []
            for position in range(count):
                stride = 2 if position == 0 and stage > 1 else 1
                layers.append(block(channels, of_stage, stride, rngs=rngs))
                channels = of_stage * block.expansion
            setattr(self, f"layer{stage}", nnx.List(layers))
        self.channels = (width, *(of_stage * block.expansion for of_stage in widths))

    def __call__(self, image: Float[Array, "b h w band"]) -> tuple[Float[Array, "b _h _w _c"], ...]:
        check_size(image, self.strides[-1])
        features = [jax.nn.relu(self.bn1(self.conv1(image)))]
        x = max_pool(features[0])
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                x = self.through(block, x)
            features.append(x)
        return tuple(features)


resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
resnet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))
resnet152 = partial(ResNet, Bottleneck, (3, 8, 36, 3))
