"""Layers with PyTorch's numerics, in NHWC.

Parameters are float32; a layer computes in the type of its input, so that an image in bfloat16
makes the whole model compute in bfloat16. Statistics and softmax are taken in float32 at least.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float

kaiming_normal_fan_out = initializers.variance_scaling(2.0, "fan_out", "normal")
kaiming_uniform_fan_in = initializers.variance_scaling(2.0, "fan_in", "uniform")
truncated_normal = initializers.truncated_normal(0.02)


def widened(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x` in float32, or in its own type where that is wider: for sums over many values."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def add_bias(x: Float[Array, "*n c"], bias: Float[Array, " c"]) -> Float[Array, "*n c"]:
    """`x + bias` in the type of `x`, the sum and so the bias's gradient in float32 at least."""
    return (widened(x) + bias).astype(x.dtype)


def convolve(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "kh kw i o"],
    stride: int,
    padding: Sequence[tuple[int, int]],
) -> Float[Array, "b h2 w2 o"]:
    """2-D convolution with `padding` zeros before and after each axis."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _sub_pixel(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "k k i o"],
    taps: Callable[[Float[Array, "k ..."], int], Float[Array, "2 ..."]],
) -> Float[Array, "b 2*h 2*w o"]:
    """Four 2x2 convolutions of `x`, one for each position in a 2x2 cell of the output.

    `taps(kernel, second)` gives the two taps along an axis that the first or the second position
    of a cell has: on the pixel before and its own, or on its own and the one after.
    """
    rows = []
    for second_row in (0, 1):
        row_taps = taps(kernel, second_row).swapaxes(0, 1)
        cells = [
            convolve(
                x,
                taps(row_taps, second_column).swapaxes(0, 1),
                stride=1,
                padding=[(1 - second_row, second_row), (1 - second_column, second_column)],
            )
            for second_column in (0, 1)
        ]
        rows.append(jnp.stack(cells, axis=3))
    b, h, w, _ = x.shape
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, kernel.shape[-1])


def convolve_upsampled(
    x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b 2*h 2*w o"]:
    """3x3 convolution of `x` upsampled by 2 (nearest), without making the upsampled map.

    Of the nine pixels under the kernel only four differ. For each of the four positions in a 2x2
    cell, the taps that meet the same pixel add up, and the 2x2 kernel of their sums runs over `x`:
    four products per output instead of nine, equal up to rounding.
    """

    def merged(taps: Float[Array, "3 ..."], second: int) -> Float[Array, "2 ..."]:
        near, middle, far = taps
        return jnp.stack([near + middle, far] if second else [near, middle + far])

    return _sub_pixel(x, kernel, merged)


class Conv(nnx.Module):
    """2-D convolution padded by `kernel_size // 2` on every side, as PyTorch pads.

    `SAME` would pad an even input of a strided convolution on one side only (weights_spec 5.1).
    A 1x1 convolution is computed as a matrix product, which XLA runs 2-2.5 times faster on CPU.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        use_bias: bool = False,
        kernel_init: initializers.Initializer = kaiming_normal_fan_out,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels)) if use_bias else None
        self.stride = stride

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        kernel = self.kernel[...].astype(x.dtype)
        size = kernel.shape[0]
        if size == 1:
            x = x[:, :: self.stride, :: self.stride] @ kernel[0, 0]
        else:
            x = convolve(x, kernel, self.stride, [(size // 2, size // 2)] * 2)
        return x if self.bias is None else add_bias(x, self.bias[...])


class ConvTranspose(nnx.Module):
    """`torch.nn.ConvTranspose2d` that doubles its input: kernel 4 with padding 1, or kernel 2.

    The kernel is PyTorch's, (I, O, h, w) turned to (h, w, I, O) and not flipped. Neither kind makes
    the map with zeros between its pixels: kernel 4 is four 2x2 convolutions, kernel 2 a matrix
    product (weights_spec 5.4).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, rngs: nnx.Rngs):
        if kernel_size not in (2, 4):
            raise ValueError(f"a ConvTranspose doubles its input with kernel 2 or 4: {kernel_size}")
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.kernel = nnx.Param(kaiming_normal_fan_out(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b 2*h 2*w o"]:
        kernel = self.kernel[...].astype(x.dtype)
        if kernel.shape[0] == 2:
            b, h, w, _ = x.shape
            cells = jnp.einsum("bhwi,klio->bhkwlo", x, kernel)
            x = cells.reshape(b, 2 * h, 2 * w, kernel.shape[-1])
        else:
            x = _sub_pixel(
                x, kernel, lambda taps, second: taps[jnp.array([2, 0] if second else [3, 1])]
            )
        return add_bias(x, self.bias[...])


class PatchEmbedding(nnx.Module):
    """Convolution of patches that do not overlap, with bias, computed as a matrix product."""

    def __init__(self, in_channels: int, out_channels: int, patch_size: int, *, rngs: nnx.Rngs):
        shape = (patch_size, patch_size, in_channels, out_channels)
        self.kernel = nnx.Param(truncated_normal(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        kernel = self.kernel[...].astype(x.dtype)
        p, _, i, o = kernel.shape
        b, h, w, _ = x.shape
        patches = x.reshape(b, h // p, p, w // p, p, i).swapaxes(2, 3)
        x = patches.reshape(b, h // p, w // p, p * p * i) @ kernel.reshape(p * p * i, o)
        return add_bias(x, self.bias[...])


class Linear(nnx.Module):
    """Matrix product over the last axis; the kernel is (input, output)."""

    def __init__(
        self, in_features: int, out_features: int, *, use_bias: bool = True, rngs: nnx.Rngs
    ):
        shape = (in_features, out_features)
        self.kernel = nnx.Param(truncated_normal(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None

    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        x = x @ self.kernel[...].astype(x.dtype)
        return x if self.bias is None else add_bias(x, self.bias[...])


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, with an epsilon that the architecture gives.

    PyTorch's default is 1e-5, timm's ViTs have 1e-6.
    """

    def __init__(self, channels: int, epsilon: float, *, rngs: nnx.Rngs):
        del rngs  # the same signature as every other layer
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        wide = widened(x)
        centred = wide - wide.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + self.epsilon)
        return (normal * self.scale[...] + self.bias[...]).astype(x.dtype)


BATCH_NORM_MOMENTUM = 0.1
"""How far a batch moves the running statistics towards its own."""


class BatchNorm(nnx.Module):
    """Batch normalisation with `torch.nn.BatchNorm2d`'s numerics: epsilon 1e-5, momentum 0.1.

    `train()` normalises by the batch and moves the running statistics, with the *unbiased* batch
    variance as PyTorch does (Flax's own layer stores the biased one); `eval()` uses the running
    statistics. Under `jit` over a sharded batch the statistics are those of the global batch.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        del rngs  # the same signature as every other layer
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))
        self.epsilon = 1e-5
        self.use_running_average = False  # the attribute that NNX's train() and eval() switch

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        wide = widened(x)
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean = wide.mean((0, 1, 2))
            var = jnp.square(wide - mean).mean((0, 1, 2))
            count = x.size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            for running, batch in ((self.mean, mean), (self.var, unbiased)):
                step = jax.lax.stop_gradient(batch) - running[...]
                # Set whole: an update in place makes tracing quadratic in the number of layers.
                running.set_value(running[...] + BATCH_NORM_MOMENTUM * step)
        scale = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        return (wide * scale + (self.bias[...] - mean * scale)).astype(x.dtype)


class ConvNormRelu(nnx.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, rngs: nnx.Rngs):
        self.conv = Conv(
            in_channels, out_channels, kernel_size, kernel_init=kaiming_uniform_fan_in, rngs=rngs
        )
        self.bn = BatchNorm(out_channels, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        return jax.nn.relu(self.bn(self.conv(x)))


def logits_head(in_channels: int, num_classes: int, kernel_size: int, *, rngs: nnx.Rngs) -> Conv:
    """The convolution at a decoder's end: with bias, and Xavier's initialisation as in smp."""
    return Conv(
        in_channels,
        num_classes,
        kernel_size,
        use_bias=True,
        kernel_init=initializers.xavier_uniform(),
        rngs=rngs,
    )
