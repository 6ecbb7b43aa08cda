"""UPerNet (Xiao et al. 2018, arXiv 1807.10221) as `segmentation_models_pytorch` 0.6.0 decodes."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxcrop.models.draws import Draws
from jaxcrop.models.layers import ConvNormRelu, LayerNorm, logits_head
from jaxcrop.models.primitives import widened
from jaxcrop.models.pyramid import resize
from jaxcrop.models.remat import Blockwise

WIDTH = 256
"""Channels of everything between the backbone's maps and the head."""

POOLED_SIZES = (1, 2, 3, 6)


def _pooling_matrix(size: int, length: int) -> Float[np.ndarray, "size length"]:
    """Averages over `size` bins of an axis of `length` pixels, as torch's AdaptiveAvgPool has them.

    Bin i starts at floor(i * length / size) and ends before ceil((i + 1) * length / size).
    """
    matrix = np.zeros((size, length))
    for i in range(size):
        start, end = i * length // size, -(-(i + 1) * length // size)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


def average_pool(x: Float[Array, "b _h _w c"], size: int) -> Float[Array, "b size size c"]:
    """Average pooling to `size` x `size` bins that may overlap: `torch.nn.AdaptiveAvgPool2d`."""
    wide = widened(x)
    rows, columns = (
        jnp.asarray(_pooling_matrix(size, length), wide.dtype) for length in x.shape[1:3]
    )
    return jnp.einsum("ih,bhwc,jw->bijc", rows, wide, columns).astype(x.dtype)


class PyramidPooling(nnx.Module):
    """The map itself beside its averages over 1, 4, 9 and 36 bins, convolved into one."""

    def __init__(self, channels: int, *, rngs: Draws):
        self.blocks = nnx.List(ConvNormRelu(channels, WIDTH, 1, rngs=rngs) for _ in POOLED_SIZES)
        self.fusion = ConvNormRelu(channels + len(POOLED_SIZES) * WIDTH, WIDTH, 3, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w 256"]:
        pooled = [
            resize(block(average_pool(x, size)), x.shape[1:3])
            for block, size in zip(self.blocks, POOLED_SIZES, strict=True)
        ]
        return self.fusion(jnp.concatenate([x, *pooled], axis=-1))


class UPerNet(Blockwise):
    """Pyramid pooling, feature pyramid and fusion over the last four maps, and a linear head.

    `channels` are those of the pyramid, finest first. Logits have the size of the finest of the
    four maps.
    """

    wants_pyramid = True

    def __init__(self, channels: Sequence[int], num_classes: int, *, rngs: Draws):
        *laterals, deepest = channels[-4:]
        self.norms = nnx.List(LayerNorm(c, 1e-6, rngs=rngs) for c in channels[-4:])
        self.pooling = PyramidPooling(deepest, rngs=rngs)
        self.laterals = nnx.List(ConvNormRelu(c, WIDTH, 1, rngs=rngs) for c in laterals)
        self.convs = nnx.List(ConvNormRelu(WIDTH, WIDTH, 3, rngs=rngs) for _ in laterals)
        self.fusion = ConvNormRelu((len(laterals) + 1) * WIDTH, WIDTH, 3, rngs=rngs)
        self.head = logits_head(WIDTH, num_classes, 1, rngs=rngs)

    def __call__(
        self, features: Sequence[Float[Array, "b _h _w _c"]]
    ) -> Float[Array, "b h w classes"]:
        *finer, deepest = (norm(x) for norm, x in zip(self.norms, features[-4:], strict=True))
        x = self.through(self.pooling, deepest)
        size = finer[0].shape[1:3]
        levels = [resize(x, size)]
        for i in reversed(range(len(finer))):
            lateral = self.through(self.laterals[i], finer[i])
            x = lateral + resize(x, finer[i].shape[1:3])
            levels.insert(0, resize(self.through(self.convs[i], x), size))
        return self.head(self.through(self.fusion, jnp.concatenate(levels, axis=-1)))
