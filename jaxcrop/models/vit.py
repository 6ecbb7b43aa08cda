"""Vision transformers with timm's numerics (weights_spec 5.2), DINOv2's among them."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxcrop.models.draws import Draws, truncated_normal
from jaxcrop.models.layers import LayerNorm, Linear, PatchEmbedding
from jaxcrop.models.primitives import widened
from jaxcrop.models.remat import Blockwise
from jaxcrop.models.sizes import check_size
from jaxcrop.models.transformer import Mlp, attend

TRAINED_SIZE = 224
"""Side in pixels of the images that a position embedding is stored for."""

EPSILON = 1e-6
"""Epsilon of every layer normalisation (PyTorch's default is 1e-5)."""


class Attention(nnx.Module):
    """Multi-head self-attention; query, key and value come from one product, each head-major."""

    def __init__(self, channels: int, heads: int, *, rngs: Draws):
        self.qkv = Linear(channels, 3 * channels, rngs=rngs)
        self.proj = Linear(channels, channels, rngs=rngs)
        self.heads = heads

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        b, n, c = x.shape
        # split: its gradient joins the three, where that of indexing would add them up
        parts = jnp.split(self.qkv(x), 3, axis=-1)
        parts = (part.reshape(b, n, self.heads, c // self.heads).swapaxes(1, 2) for part in parts)
        query, key, value = parts
        return self.proj(attend(query * (c // self.heads) ** -0.5, key, value))


class LayerScale(nnx.Module):
    """A learned factor for each channel, by which a DINOv2 block multiplies its branches."""

    def __init__(self, channels: int, *, rngs: Draws):
        del rngs  # the same signature as every other layer
        self.gamma = nnx.Param(np.full(channels, 1e-5, np.float32))

    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        return (widened(x) * self.gamma[...]).astype(x.dtype)


class Block(nnx.Module):
    """Pre-norm transformer block; `layer_scale` asks for the factors of DINOv2."""

    def __init__(self, channels: int, heads: int, *, layer_scale: bool, rngs: Draws):
        self.norm1 = LayerNorm(channels, EPSILON, rngs=rngs)
        self.attn = Attention(channels, heads, rngs=rngs)
        self.ls1 = LayerScale(channels, rngs=rngs) if layer_scale else None
        self.norm2 = LayerNorm(channels, EPSILON, rngs=rngs)
        self.mlp = Mlp(channels, rngs=rngs)
        self.ls2 = LayerScale(channels, rngs=rngs) if layer_scale else None

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        branch = self.attn(self.norm1(x))
        x = x + (branch if self.ls1 is None else self.ls1(branch))
        branch = self.mlp(self.norm2(x))
        return x + (branch if self.ls2 is None else self.ls2(branch))


def resize_positions(
    embedding: Float[Array, "1 n c"], grid: tuple[int, int]
) -> Float[Array, "1 n2 c"]:
    """The embedding of a class token and a square grid of patches, on another grid.

    JAX's cubic kernel is PyTorch's bicubic with antialiasing, which timm uses.
    """
    class_token, patches = embedding[:, :1], embedding[:, 1:]
    side, channels = math.isqrt(patches.shape[1]), patches.shape[2]
    patches = patches.reshape(1, side, side, channels)
    patches = jax.image.resize(patches, (1, *grid, channels), "cubic")
    return jnp.concatenate([class_token, patches.reshape(1, -1, channels)], axis=1)


class VisionTransformer(Blockwise):
    """ViT without classifier; returns four maps, after each quarter of its blocks.

    Every map has one vector for each patch, at stride `patch_size`, without the class token. The
    last is normalised: timm's `forward_features`. The others are the blocks' outputs as they are:
    timm's `forward_intermediates` with `norm=False`, since its final norm is fitted to the last.

    The position embedding is that of a 224-pixel image and resized to any other. Parameter names
    follow timm's. Raises ValueError for an image whose sides are no multiples of `patch_size`.
    """

    def __init__(
        self,
        patch_size: int,
        channels: int,
        depth: int,
        heads: int,
        in_channels: int,
        *,
        layer_scale: bool = False,
        rngs: Draws,
    ):
        tokens = 1 + (TRAINED_SIZE // patch_size) ** 2
        self.patch_embed = PatchEmbedding(in_channels, channels, patch_size, rngs=rngs)
        self.cls_token = nnx.Param(truncated_normal(rngs.params(), (1, 1, channels)))
        self.pos_embed = nnx.Param(truncated_normal(rngs.params(), (1, tokens, channels)))
        self.blocks = nnx.List(
            Block(channels, heads, layer_scale=layer_scale, rngs=rngs) for _ in range(depth)
        )
        self.norm = LayerNorm(channels, EPSILON, rngs=rngs)
        self.patch_size = patch_size
        self.strides = (patch_size,) * 4
        self.channels = (channels,) * 4

    def __call__(self, image: Float[Array, "b h w band"]) -> tuple[Float[Array, "b _h _w c"], ...]:
        check_size(image, self.patch_size)
        x = self.patch_embed(image)
        b, h, w, c = x.shape
        positions = resize_positions(self.pos_embed[...], (h, w))
        x = (widened(x.reshape(b, h * w, c)) + positions[:, 1:]).astype(x.dtype)
        class_token = (self.cls_token[...] + positions[:, :1]).astype(x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(class_token, (b, 1, c)), x], 1)

        maps = []
        quarter = len(self.blocks) // 4
        for count, block in enumerate(self.blocks, start=1):
            x = self.through(block, x)
            if count == len(self.blocks):
                x = self.norm(x)
            if count % quarter == 0:
                maps.append(x[:, 1:].reshape(b, h, w, c))
        return tuple(maps)


vit_s16 = partial(VisionTransformer, 16, 384, 12, 6)
vit_b16 = partial(VisionTransformer, 16, 768, 12, 12)
vit_l16 = partial(VisionTransformer, 16, 1024, 24, 16)
vit_h14 = partial(VisionTransformer, 14, 1280, 32, 16)
vit_s14 = partial(VisionTransformer, 14, 384, 12, 6, layer_scale=True)
vit_b14 = partial(VisionTransformer, 14, 768, 12, 12, layer_scale=True)
