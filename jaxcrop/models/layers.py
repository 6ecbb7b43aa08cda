"""Convolution and batch normalisation with PyTorch's numerics, in NHWC."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float

kaiming_normal_fan_out = initializers.variance_scaling(2.0, "fan_out", "normal")
kaiming_uniform_fan_in = initializers.variance_scaling(2.0, "fan_in", "uniform")


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

    rows = []
    for second_row in (0, 1):
        row_merged = merged(kernel, second_row).swapaxes(0, 1)
        cells = [
            convolve(
                x,
                merged(row_merged, second_column).swapaxes(0, 1),
                stride=1,
                padding=[(1 - second_row, second_row), (1 - second_column, second_column)],
            )
            for second_column in (0, 1)
        ]
        rows.append(jnp.stack(cells, axis=3))
    b, h, w, _ = x.shape
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, kernel.shape[-1])


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
        kernel = self.kernel[...]
        size = kernel.shape[0]
        if size == 1:
            x = x[:, :: self.stride, :: self.stride] @ kernel[0, 0]
        else:
            x = convolve(x, kernel, self.stride, [(size // 2, size // 2)] * 2)
        return x if self.bias is None else x + self.bias[...]


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
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean = x.mean((0, 1, 2))
            var = jnp.square(x - mean).mean((0, 1, 2))
            count = x.size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            for running, batch in ((self.mean, mean), (self.var, unbiased)):
                step = jax.lax.stop_gradient(batch) - running[...]
                running[...] += BATCH_NORM_MOMENTUM * step
        scale = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        return x * scale + (self.bias[...] - mean * scale)
