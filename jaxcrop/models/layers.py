"""Layers with PyTorch's numerics, in NHWC.

Parameters are float32; a layer computes in the type of its input, so that an image in bfloat16
makes the whole model compute in bfloat16. Statistics and softmax are taken in float32 at least.
"""

from functools import partial
from math import gcd

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float, Int

kaiming_normal_fan_out = initializers.variance_scaling(2.0, "fan_out", "normal")
kaiming_uniform_fan_in = initializers.variance_scaling(2.0, "fan_in", "uniform")
truncated_normal = initializers.truncated_normal(0.02)


def widened(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x` in float32, or in its own type where that is wider: for sums over many values."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def add_bias(x: Float[Array, "*n c"], bias: Float[Array, " c"]) -> Float[Array, "*n c"]:
    """`x + bias` in the type of `x`, the sum and so the bias's gradient in float32 at least."""
    return (widened(x) + bias).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "kh kw i o"],
    stride: int,
    padding: tuple[tuple[int, int], tuple[int, int]],
) -> Float[Array, "b h2 w2 o"]:
    """2-D convolution with `padding` zeros before and after each axis.

    Barriers keep what makes its operands out of it: XLA would compute the whole chain of layers
    since the last convolution again, for each of the two, and badly where it must be transposed.
    """
    return _convolution(jax.lax.optimization_barrier(x), kernel, stride, padding)


def _convolution(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _convolve_forward(x, kernel, stride, padding):
    x = jax.lax.optimization_barrier(x)
    return _convolution(x, kernel, stride, padding), (x, kernel)


def _convolve_backward(stride, padding, operands, slope):
    x, kernel = operands
    slope = jax.lax.optimization_barrier(slope)
    _, pull = jax.vjp(lambda x, kernel: _convolution(x, kernel, stride, padding), x, kernel)

    def as_usual(x, slope):
        del x
        return pull(slope)[1]

    def turned(x, slope):
        """The gradient as a convolution of the slope by `x`, whose larger operand is the window.

        XLA turns the image of a convolution on a CPU so that channels come first, which costs it
        more than the convolution; a window's channels stay last.
        """
        sides = zip(kernel.shape[:2], padding, strict=True)
        beyond = [(size - 1 - before, size - 1 - after) for size, (before, after) in sides]
        numbers = ("CHWN", "IHWO", "HWCN")
        found = jax.lax.conv_general_dilated(slope, x, (1, 1), beyond, dimension_numbers=numbers)
        return jnp.flip(found, (0, 1))

    narrow = stride == 1 and slope.shape[-1] < x.shape[-1]
    of_kernel = jax.lax.platform_dependent(
        x, slope, cpu=turned if narrow else as_usual, default=as_usual
    )
    return pull(slope)[0], of_kernel


convolve.defvjp(_convolve_forward, _convolve_backward)


def _sub_pixel(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "k k i o"],
    taps: Int[np.ndarray, "2 2 k"],
) -> Float[Array, "b 2*h 2*w o"]:
    """Four 2x2 convolutions of `x`, one for each position in a 2x2 cell of the output.

    `taps` says which of the kernel's taps along an axis, added up, the first and the second
    position of a cell have on two pixels: the one before and its own, or its own and the one after.
    """
    k, _, i, o = kernel.shape
    b, h, w, _ = x.shape
    flat = kernel.reshape(k * k, i * o)

    def cell(row: int, column: int) -> Float[Array, "b h w o"]:
        both = np.einsum("ak,bl->abkl", taps[row], taps[column]).reshape(4, k * k)
        merged = jnp.matmul(both.astype(x.dtype), flat, precision="highest")
        padding = ((1 - row, row), (1 - column, column))
        return convolve(x, merged.reshape(2, 2, i, o), 1, padding)

    rows = [jnp.stack([cell(row, 0), cell(row, 1)], axis=3) for row in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, o)


_UPSAMPLED_TAPS = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
_TRANSPOSED_TAPS = np.array([[[0, 0, 0, 1], [0, 1, 0, 0]], [[0, 0, 1, 0], [1, 0, 0, 0]]])


def convolve_upsampled(
    x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b 2*h 2*w o"]:
    """3x3 convolution of `x` upsampled by 2 (nearest), without making the upsampled map.

    Of the nine pixels under the kernel only four differ. For each of the four positions in a 2x2
    cell, the taps that meet the same pixel add up, and the 2x2 kernel of their sums runs over `x`:
    four products per output instead of nine, equal up to rounding.
    """
    return _sub_pixel(x, kernel, _UPSAMPLED_TAPS)


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
            x = convolve(x, kernel, self.stride, ((size // 2, size // 2),) * 2)
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
            x = _sub_pixel(x, kernel, _TRANSPOSED_TAPS)
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

_LANES, _ROWS = 128, 16


def _in_rows(
    x: Float[Array, "b h w c"], *channels: Float[Array, " c"]
) -> tuple[Float[Array, "b groups rows lanes"], ...]:
    """Pixels beside each other, as 128 lanes where channels are few, in groups of 16 such rows.

    Reductions in two steps over such a view, and loops over wide rows, are what XLA vectorises and
    spreads over the cores of a CPU; its own sum over all pixels takes four to ten times as long.
    """
    b, h, w, c = x.shape
    beside = gcd(h * w, max(1, _LANES // c))
    rows = gcd(h * w // beside, _ROWS)
    return x.reshape(b, -1, rows, beside * c), *(jnp.tile(value, beside) for value in channels)


def _channel_sums(rows: Float[Array, "b groups rows lanes"], c: int) -> Float[Array, " {c}"]:
    """The sums over all pixels of a view of `_in_rows`."""
    return jax.lax.optimization_barrier(rows.sum(axis=2)).reshape(-1, c).sum(axis=0)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalise_by_batch(
    x: Float[Array, "b h w c"], scale: Float[Array, " c"], bias: Float[Array, " c"], epsilon: float
) -> tuple[Float[Array, "b h w c"], Float[Array, " c"], Float[Array, " c"]]:
    """`x` normalised by its own statistics, and these: mean and biased variance of each channel."""
    return _normalise_forward(x, scale, bias, epsilon)[0]


def _normalise_forward(x, scale, bias, epsilon):
    x = jax.lax.optimization_barrier(x)
    c = x.shape[-1]
    count = x.size // c
    rows, *_ = _in_rows(widened(x))
    mean = _channel_sums(rows, c) / count
    rows, centre = _in_rows(widened(x), mean)
    var = _channel_sums(jnp.square(rows - centre), c) / count
    inverse = jax.lax.rsqrt(var + epsilon)
    rows, factor, shift = _in_rows(widened(x), scale * inverse, bias - mean * scale * inverse)
    y = (rows * factor + shift).astype(x.dtype).reshape(x.shape)
    return (y, mean, var), (x, scale, mean, inverse)


def _normalise_backward(epsilon, kept, slopes):
    """The gradient of Ioffe and Szegedy 2015 (arXiv 1502.03167, section 3)."""
    del epsilon
    x, scale, mean, inverse = kept
    slope = jax.lax.optimization_barrier(slopes[0])
    c = x.shape[-1]
    count = x.size // c
    rows, centre = _in_rows(widened(x), mean)
    slopes, *_ = _in_rows(widened(slope))
    for_bias = _channel_sums(slopes, c)
    for_scale = _channel_sums(slopes * (rows - centre), c) * inverse
    _, factor, a, b = _in_rows(x, scale * inverse, for_bias / count, for_scale * inverse / count)
    slope = factor * (slopes - a - (rows - centre) * b)
    return slope.astype(x.dtype).reshape(x.shape), for_scale, for_bias


_normalise_by_batch.defvjp(_normalise_forward, _normalise_backward)


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
        scale, bias = self.scale[...], self.bias[...]
        if self.use_running_average:
            factor = scale * jax.lax.rsqrt(self.var[...] + self.epsilon)
            return (widened(x) * factor + (bias - self.mean[...] * factor)).astype(x.dtype)
        x, mean, var = _normalise_by_batch(x, scale, bias, self.epsilon)
        count = x.size // x.shape[-1]
        unbiased = var * (count / max(count - 1, 1))
        for running, batch in ((self.mean, mean), (self.var, unbiased)):
            step = jax.lax.stop_gradient(batch) - running[...]
            # Set whole: an update in place makes tracing quadratic in the number of layers.
            running.set_value(running[...] + BATCH_NORM_MOMENTUM * step)
        return x


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
