"""Swin Transformer v2 with torchvision's numerics (weights_spec 5.3), that of SatlasPretrain."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int8, Int64

from jaxcrop.models.draws import Draws
from jaxcrop.models.layers import LayerNorm, Linear, PatchEmbedding
from jaxcrop.models.primitives import add_bias, once, product, widened
from jaxcrop.models.remat import Blockwise
from jaxcrop.models.sizes import check_size
from jaxcrop.models.transformer import Mlp, attend

WINDOW = 8
"""Side of an attention window; every other block shifts its windows by half of it."""

EPSILON = 1e-5
"""Epsilon of every layer normalisation."""

_SMALLEST = 1e-12
"""The least length that queries and keys are divided by."""


def relative_coords_table() -> Float32[np.ndarray, "1 15 15 2"]:
    """The log-spaced (vertical, horizontal) offsets between two tokens of a window.

    Equal to the buffer of that name in torchvision's files. The extremes are log2(9) / 3 = 1.0566.
    """
    offsets = np.arange(1 - WINDOW, WINDOW, dtype=np.float32) / (WINDOW - 1) * 8
    spaced = np.sign(offsets) * np.log2(np.abs(offsets) + 1) / 3
    return np.stack(np.meshgrid(spaced, spaced, indexing="ij"), axis=-1)[None]


def relative_position_index() -> Int64[np.ndarray, " pairs"]:
    """The flat place in the table of each (query, key) pair of a window's 64 tokens.

    Equal to the buffer of that name in torchvision's files.
    """
    y, x = np.divmod(np.arange(WINDOW**2), WINDOW)
    dy, dx = np.subtract.outer(y, y), np.subtract.outer(x, x)
    return ((dy + WINDOW - 1) * (2 * WINDOW - 1) + dx + WINDOW - 1).ravel()


def to_windows(x: Float[Array, "b h w c"]) -> Float[Array, "b windows tokens c"]:
    """Cut a map whose sides are multiples of the window into windows, row by row."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // WINDOW, WINDOW, w // WINDOW, WINDOW, c).swapaxes(2, 3)
    return x.reshape(b, -1, WINDOW**2, c)


def from_windows(
    x: Float[Array, "b windows tokens c"], h: int, w: int
) -> Float[Array, "b {h} {w} c"]:
    """Join windows to the map of h x w tokens that they were cut from."""
    b, _, _, c = x.shape
    x = x.reshape(b, h // WINDOW, w // WINDOW, WINDOW, WINDOW, c).swapaxes(2, 3)
    return x.reshape(b, h, w, c)


def window_regions(h: int, w: int, shift: Sequence[int]) -> Int8[np.ndarray, "windows tokens"]:
    """A number for each token of a rolled map: tokens of one window attend within their number.

    Rolling brings tokens of opposite edges together in the last row and column of windows.
    """
    rows = np.arange(h) >= h - shift[0]
    columns = np.arange(w) >= w - shift[1]
    regions = np.add.outer(2 * rows.astype(np.int8), columns.astype(np.int8))
    return np.asarray(to_windows(regions[None, :, :, None]))[0, :, :, 0]


class PositionBias(nnx.Module):
    """The two layers that turn an offset into a bias of each head: `fc1`, ReLU, `fc2`."""

    def __init__(self, heads: int, *, rngs: Draws):
        self.fc1 = Linear(2, 512, rngs=rngs)
        self.fc2 = Linear(512, heads, use_bias=False, rngs=rngs)

    def __call__(self, offsets: Float[Array, "*n 2"]) -> Float[Array, "*n heads"]:
        return self.fc2(jax.nn.relu(self.fc1(offsets)))


class WindowAttention(nnx.Module):
    """Scaled cosine attention within windows, with a bias from the tokens' relative positions.

    A shifted map is rolled, and tokens from its opposite edges are told apart by -100 on their
    logits. A map is padded with zeros to whole windows; as in torchvision, the padding is not
    masked, and an axis of one window is not shifted.
    """

    def __init__(self, channels: int, heads: int, *, shifted: bool, rngs: Draws):
        self.qkv = Linear(channels, 3 * channels, rngs=rngs)
        self.proj = Linear(channels, channels, rngs=rngs)
        self.logit_scale = nnx.Param(np.full((heads, 1, 1), math.log(10), np.float32))
        self.cpb_mlp = PositionBias(heads, rngs=rngs)
        self.shift = WINDOW // 2 if shifted else 0

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        _, h, w, _ = x.shape
        x = jnp.pad(x, ((0, 0), (0, -h % WINDOW), (0, -w % WINDOW), (0, 0)))
        sides = x.shape[1:3]
        shift = tuple(self.shift if side > WINDOW else 0 for side in sides)
        regions = window_regions(*sides, shift) if any(shift) else None
        x = to_windows(jnp.roll(x, [-s for s in shift], (1, 2)))
        x = from_windows(self._attend(x, regions), *sides)
        return jnp.roll(x, shift, (1, 2))[:, :h, :w]

    def _attend(
        self, x: Float[Array, "b n t c"], regions: Int8[np.ndarray, "n t"] | None
    ) -> Float[Array, "b n t c"]:
        b, n, t, c = x.shape
        heads = self.logit_scale.shape[0]
        # torchvision stores a bias of the keys and ignores it
        bias = self.qkv.bias[...] * np.repeat(np.array([1, 0, 1], np.float32), c)
        qkv = add_bias(product(x, self.qkv.kernel[...].astype(x.dtype)), bias)
        # split: its gradient joins the three, where that of indexing would add them up
        query, key, value = (
            part.reshape(b, n, t, heads, c // heads).swapaxes(2, 3)
            for part in jnp.split(qkv, 3, axis=-1)
        )
        scale = jnp.exp(jnp.minimum(self.logit_scale[...], math.log(100)))
        query, key = at_length(query, scale), at_length(key, jnp.ones_like(scale))
        wide = jnp.promote_types(x.dtype, jnp.float32)
        mask = None
        if regions is not None:
            regions = regions[:, None]
            mask = np.where(regions[..., None] == regions[..., None, :], 0, -100)
            mask = jnp.asarray(mask, wide)
        return self.proj(attend(query, key, value, self._position_bias(wide), mask))

    def _position_bias(self, dtype: jnp.dtype) -> Float[Array, "heads tokens tokens"]:
        table = jnp.asarray(relative_coords_table().reshape(-1, 2), dtype)
        bias = 16 * jax.nn.sigmoid(self.cpb_mlp(table)).T
        return bias[:, relative_position_index()].reshape(-1, WINDOW**2, WINDOW**2)


@jax.custom_vjp
def at_length(
    x: Float[Array, "*n heads t d"], length: Float[Array, "heads 1 1"]
) -> Float[Array, "*n heads t d"]:
    """The vectors along the last axis at this length, which is positive: `x * length / |x|`.

    |x| is 1e-12 at least, and the gradient at zero vectors (padding's keys) finite. Of `x` itself
    the gradient keeps nothing: what attention keeps, and |x|, say as much.
    """
    return _at_length_forward(x, length)[0]


def _at_length_forward(x, length):
    squares = jnp.square(widened(x)).sum(-1, keepdims=True)
    inverse = once(jax.lax.rsqrt(jnp.maximum(squares, _SMALLEST**2)))
    y = once((widened(x) * (length * inverse)).astype(x.dtype))
    return y, (y, inverse, length)


def _at_length_backward(kept, slope):
    y, inverse, length = kept
    wide, slope = widened(y), widened(slope)
    along = (wide * slope).sum(-1, keepdims=True) / length
    of_length = along.sum((*range(along.ndim - 3), -2), keepdims=True).reshape(length.shape)
    shorter = inverse * _SMALLEST > 1 - 1e-6  # those that are divided by it
    turned = jnp.where(shorter, 0, along)
    of_x = inverse * (length * slope - turned * wide)
    return of_x.astype(y.dtype), of_length.astype(length.dtype)


at_length.defvjp(_at_length_forward, _at_length_backward)


class Block(nnx.Module):
    """Attention and MLP, each normalised at its *end* before it joins the residual stream.

    torchvision drops branches at random in training (stochastic depth); this one never does, which
    is torchvision's evaluation.
    """

    def __init__(self, channels: int, heads: int, *, shifted: bool, rngs: Draws):
        self.norm1 = LayerNorm(channels, EPSILON, rngs=rngs)
        self.attn = WindowAttention(channels, heads, shifted=shifted, rngs=rngs)
        self.norm2 = LayerNorm(channels, EPSILON, rngs=rngs)
        self.mlp = Mlp(channels, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        x = x + self.norm1(self.attn(x))
        return x + self.norm2(self.mlp(x))


class PatchMerging(nnx.Module):
    """Halve a map and double its channels: 2x2 cells joined, reduced, then normalised (v2)."""

    def __init__(self, channels: int, *, rngs: Draws):
        self.reduction = Linear(4 * channels, 2 * channels, use_bias=False, rngs=rngs)
        self.norm = LayerNorm(2 * channels, EPSILON, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 2*c"]:
        _, h, w, _ = x.shape
        x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
        # the cell's column by column: (0, 0), (1, 0), (0, 1), (1, 1)
        cells = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.norm(self.reduction(jnp.concatenate(cells, axis=-1)))


class SwinTransformerV2(Blockwise):
    """Swin v2 without classifier; returns the maps of its four stages, finest first.

    `channels` are those of the first stage, `depths` and `heads` the blocks of each stage and their
    heads. The maps are not normalised by the classifier's norm, as SatlasPretrain takes them. An
    odd map is padded to even before it is halved. Raises ValueError for an image whose sides are no
    multiples of 4.
    """

    strides = (4, 8, 16, 32)

    def __init__(
        self,
        channels: int,
        depths: Sequence[int],
        heads: Sequence[int],
        in_channels: int,
        *,
        rngs: Draws,
    ):
        self.channels = tuple(channels * 2**stage for stage in range(4))
        self.patch_embed = PatchEmbedding(in_channels, channels, 4, rngs=rngs)
        self.patch_norm = LayerNorm(channels, EPSILON, rngs=rngs)
        self.stages = nnx.List(
            nnx.List(
                Block(width, heads_of_stage, shifted=position % 2 == 1, rngs=rngs)
                for position in range(depth)
            )
            for width, depth, heads_of_stage in zip(self.channels, depths, heads, strict=True)
        )
        self.merges = nnx.List(PatchMerging(width, rngs=rngs) for width in self.channels[:-1])

    def __call__(self, image: Float[Array, "b h w band"]) -> tuple[Float[Array, "b _h _w _c"], ...]:
        check_size(image, self.strides[0])
        x = self.patch_norm(self.patch_embed(image))
        maps = []
        for stage, merge in zip(self.stages, (*self.merges, None), strict=True):
            for block in stage:
                x = self.through(block, x)
            maps.append(x)
            x = merge(x) if merge else x
        return tuple(maps)


swin_v2_t = partial(SwinTransformerV2, 96, (2, 2, 6, 2), (3, 6, 12, 24))
swin_v2_b = partial(SwinTransformerV2, 128, (2, 2, 18, 2), (4, 8, 16, 32))
