"""Layers with PyTorch's numerics, in NHWC.

Parameters are float32; a layer computes in the type of its input, so that an image in bfloat16
makes the whole model compute in bfloat16. Statistics and softmax are taken in float32 at least.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxcrop.models.convolutions import convolve, convolve_transposed
from jaxcrop.models.draws import (
    Draws,
    Initializer,
    kaiming_normal_fan_out,
    kaiming_uniform_fan_in,
    ones,
    truncated_normal,
    xavier_uniform,
    zeros,
)
from jaxcrop.models.primitives import (
    add_bias,
    normalise_by_batch,
    normalise_each,
    product,
    widened,
)


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
        kernel_init: Initializer = kaiming_normal_fan_out,
        rngs: Draws,
    ):
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        self.bias = nnx.Param(zeros(out_channels)) if use_bias else None
        self.stride = stride

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        kernel = self.kernel[...].astype(x.dtype)
        size = kernel.shape[0]
        if size == 1:
            x = product(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        else:
            x = convolve(x, kernel, self.stride, ((size // 2, size // 2),) * 2)
        return x if self.bias is None else add_bias(x, self.bias[...])


class ConvTranspose(nnx.Module):
    """`torch.nn.ConvTranspose2d` that doubles its input: kernel 4 with padding 1, or kernel 2.

    The kernel is PyTorch's, (I, O, h, w) turned to (h, w, I, O) and not flipped. Neither kind makes
    the map with zeros between its pixels: kernel 4 is four 2x2 convolutions, kernel 2 a matrix
    product (weights_spec 5.4).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, rngs: Draws):
        if kernel_size not in (2, 4):
            raise ValueError(f"a ConvTranspose doubles its input with kernel 2 or 4: {kernel_size}")
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.kernel = nnx.Param(kaiming_normal_fan_out(rngs.params(), shape))
        self.bias = nnx.Param(zeros(out_channels))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b 2*h 2*w o"]:
        kernel = self.kernel[...].astype(x.dtype)
        if kernel.shape[0] == 2:
            b, h, w, _ = x.shape
            cells = jnp.einsum("bhwi,klio->bhkwlo", x, kernel)
            x = cells.reshape(b, 2 * h, 2 * w, kernel.shape[-1])
        else:
            x = convolve_transposed(x, kernel)
        return add_bias(x, self.bias[...])


class PatchEmbedding(nnx.Module):
    """Convolution of patches that do not overlap, with bias, computed as a matrix product."""

    def __init__(self, in_channels: int, out_channels: int, patch_size: int, *, rngs: Draws):
        shape = (patch_size, patch_size, in_channels, out_channels)
        self.kernel = nnx.Param(truncated_normal(rngs.params(), shape))
        self.bias = nnx.Param(zeros(out_channels))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        kernel = self.kernel[...].astype(x.dtype)
        p, _, i, o = kernel.shape
        b, h, w, _ = x.shape
        patches = x.reshape(b, h // p, p, w // p, p, i).swapaxes(2, 3)
        x = product(patches.reshape(b, h // p, w // p, p * p * i), kernel.reshape(p * p * i, o))
        return add_bias(x, self.bias[...])


class Linear(nnx.Module):
    """Matrix product over the last axis; the kernel is (input, output)."""

    def __init__(self, in_features: int, out_features: int, *, use_bias: bool = True, rngs: Draws):
        shape = (in_features, out_features)
        self.kernel = nnx.Param(truncated_normal(rngs.params(), shape))
        self.bias = nnx.Param(zeros(out_features)) if use_bias else None

    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        x = product(x, self.kernel[...].astype(x.dtype))
        return x if self.bias is None else add_bias(x, self.bias[...])


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, with an epsilon that the architecture gives.

    PyTorch's default is 1e-5, timm's ViTs have 1e-6.
    """

    def __init__(self, channels: int, epsilon: float, *, rngs: Draws):
        del rngs  # the same signature as every other layer
        self.scale = nnx.Param(ones(channels))
        self.bias = nnx.Param(zeros(channels))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        return normalise_each(x, self.scale[...], self.bias[...], self.epsilon)


BATCH_NORM_MOMENTUM = 0.1
"""How far a batch moves the running statistics towards its own."""


class BatchNorm(nnx.Module):
    """Batch normalisation with `torch.nn.BatchNorm2d`'s numerics: epsilon 1e-5, momentum 0.1.

    `train()` normalises by the batch and moves the running statistics, with the *unbiased* batch
    variance as PyTorch does (Flax's own layer stores the biased one); `eval()` uses the running
    statistics. Under `jit` over a sharded batch the statistics are those of the global batch.
    """

    def __init__(self, channels: int, *, rngs: Draws):
        del rngs  # the same signature as every other layer
        self.scale = nnx.Param(ones(channels))
        self.bias = nnx.Param(zeros(channels))
        self.mean = nnx.BatchStat(zeros(channels))
        self.var = nnx.BatchStat(ones(channels))
        self.epsilon = 1e-5
        self.use_running_average = False  # the attribute that NNX's train() and eval() switch

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        scale, bias = self.scale[...], self.bias[...]
        if self.use_running_average:
            factor = scale * jax.lax.rsqrt(self.var[...] + self.epsilon)
            return (widened(x) * factor + (bias - self.mean[...] * factor)).astype(x.dtype)
        x, mean, var = normalise_by_batch(x, scale, bias, self.mean[...], self.epsilon)
        count = x.size // x.shape[-1]
        unbiased = var * (count / max(count - 1, 1))
        for running, batch in ((self.mean, mean), (self.var, unbiased)):
            step = jax.lax.stop_gradient(batch) - running[...]
            # Set whole: an update in place makes tracing quadratic in the number of layers.
            running.set_value(running[...] + BATCH_NORM_MOMENTUM * step)
        return x


class ConvNormRelu(nnx.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, rngs: Draws):
        self.conv = Conv(
            in_channels, out_channels, kernel_size, kernel_init=kaiming_uniform_fan_in, rngs=rngs
        )
        self.bn = BatchNorm(out_channels, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        return jax.nn.relu(self.bn(self.conv(x)))


def logits_head(in_channels: int, num_classes: int, kernel_size: int, *, rngs: Draws) -> Conv:
    """The convolution at a decoder's end: with bias, and Xavier's initialisation as in smp."""
    return Conv(
        in_channels,
        num_classes,
        kernel_size,
        use_bias=True,
        kernel_init=xavier_uniform,
        rngs=rngs,
    )
