"""Feature maps brought to other sizes: a pyramid made of maps of one stride, maps of one size."""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from jaxcrop.models.draws import Draws
from jaxcrop.models.layers import BatchNorm, ConvTranspose


def resize(x: Float[Array, "b _h _w c"], size: tuple[int, int]) -> Float[Array, "b height width c"]:
    """`x` resized bilinearly to `size` = (height, width): PyTorch's with align_corners=False."""
    b, *_, c = x.shape
    return jax.image.resize(x, (b, *size, c), "bilinear", antialias=False)


class PlainPyramid(nnx.Module):
    """The usual pyramid of a plain ViT: four maps of one stride p to strides p/4, p/2, p and 2p.

    Transposed 2x2 convolutions double the first map twice (batch normalisation and GELU between)
    and the second once; the third stays, the fourth is max-pooled. So do the UPerNets of BEiT
    (arXiv 2106.08254) and MAE. The maps need an even height and width.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, rngs: Draws):
        first, second, *_ = channels
        self.up_first = ConvTranspose(first, first, 2, rngs=rngs)
        self.bn = BatchNorm(first, rngs=rngs)
        self.up_again = ConvTranspose(first, first, 2, rngs=rngs)
        self.up_second = ConvTranspose(second, second, 2, rngs=rngs)
        self.channels = tuple(channels)
        self.strides = (strides[0] / 4, strides[1] / 2, strides[2], 2 * strides[3])

    def __call__(
        self, features: Sequence[Float[Array, "b _h _w _c"]]
    ) -> tuple[Float[Array, "b _h2 _w2 _c"], ...]:
        first, second, third, fourth = features
        first = jax.nn.gelu(self.bn(self.up_first(first)), approximate=False)
        return (
            self.up_again(first),
            self.up_second(second),
            third,
            nnx.max_pool(fourth, (2, 2), (2, 2)),
        )
