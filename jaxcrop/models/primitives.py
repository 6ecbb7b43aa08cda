"""What the layers compute, with gradients that XLA makes good programs of.

Each function has its gradient written out. Barriers keep what makes the operands of a product or a
convolution out of it: XLA would compute the whole chain of layers since the last one again for
each user, and badly where an operand must be transposed. Sums over many values go in two steps,
of which XLA vectorises the first and spreads it over the cores of a CPU.
"""

from functools import partial
from math import gcd

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

_LANES, _ROWS = 128, 16
"""A row of so many numbers fills the vector units, and so many rows are summed at once."""


def widened(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x` in float32, or in its own type where that is wider: for sums over many values."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def at_once(*gradients: Array) -> tuple[Array, ...]:
    """The gradients of a layer, all of them before those of the next one, on a CPU.

    XLA leaves those of parameters for later, and what they are computed from in memory. Of several
    accelerators, each adds up such gradients with the others' while it goes on.
    """
    return jax.lax.platform_dependent(
        *gradients,
        cpu=lambda *gradients: jax.lax.optimization_barrier(gradients),
        default=lambda *gradients: gradients,
    )


def channel_sums(x: Float[Array, "b *n c"]) -> Float[Array, " c"]:
    """The sum over all but the last axis."""
    b, *_, c = x.shape
    x = x.reshape(b, -1, c)
    count = x.shape[1]
    beside = gcd(count, max(1, _LANES // c))
    x = x.reshape(b, count // beside, beside * c)
    whole = x.shape[1] // _ROWS * _ROWS
    first = x[:, :whole].reshape(b, -1, _ROWS, beside * c).sum(axis=2)
    sums = jax.lax.optimization_barrier(first).reshape(-1, c).sum(axis=0)
    return sums + x[:, whole:].reshape(-1, c).sum(axis=0) if whole < x.shape[1] else sums


def _row_means(x: Float[Array, "*n c"]) -> Float[Array, "*n 1"]:
    """The mean over the last axis."""
    *leading, c = x.shape
    lanes = gcd(c, _ROWS)
    sums = x.reshape(*leading, c // lanes, lanes).sum(axis=-2)
    return jax.lax.optimization_barrier(sums).sum(axis=-1, keepdims=True) / c


@jax.custom_vjp
def add_bias(x: Float[Array, "b *n c"], bias: Float[Array, " c"]) -> Float[Array, "b *n c"]:
    """`x + bias` in the type of `x`, the sum and so the bias's gradient in float32 at least."""
    return (widened(x) + bias).astype(x.dtype)


def _add_bias_backward(_, slope):
    return at_once(slope, channel_sums(widened(slope)))


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), None), _add_bias_backward)


@jax.custom_vjp
def product(x: Float[Array, "*n i"], kernel: Float[Array, "i o"]) -> Float[Array, "*n o"]:
    """The matrix product over the last axis of `x`."""
    return jax.lax.optimization_barrier(x) @ kernel


def _product_forward(x, kernel):
    x = jax.lax.optimization_barrier(x)
    return x @ kernel, (x, kernel)


def _product_backward(operands, slope):
    x, kernel = operands
    slope = jax.lax.optimization_barrier(slope)
    i, o = kernel.shape
    rows, slopes = x.reshape(-1, i), slope.reshape(-1, o)
    # Over the rows of both: XLA would rather turn one of them first. The wider goes last.
    over_rows = (((0,), (0,)), ((), ()))
    if i > o:
        of_kernel = jax.lax.dot_general(slopes, rows, over_rows).T
    else:
        of_kernel = jax.lax.dot_general(rows, slopes, over_rows)
    return at_once(slope @ kernel.T, of_kernel)


product.defvjp(_product_forward, _product_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "kh kw i o"],
    stride: int,
    padding: tuple[tuple[int, int], tuple[int, int]],
) -> Float[Array, "b h2 w2 o"]:
    """2-D convolution with `padding` zeros before and after each axis."""
    return _convolution(jax.lax.optimization_barrier(x), kernel, stride, padding)


_NARROW = 16
"""Below so many channels a CPU takes longer to gather an image's windows than to multiply them."""


def _convolution(x, kernel, stride, padding):
    narrow = stride == 1 and min(kernel.shape[2:]) < _NARROW
    columns = x.shape[2] + sum(padding[1]) - kernel.shape[1] + 1
    if narrow and columns % 2 == 0:
        pairs, one = partial(_in_pairs, padding=padding), partial(_one_by_one, padding=padding)
        return jax.lax.platform_dependent(x, kernel, cpu=pairs, default=one)
    return _one_by_one(x, kernel, padding, stride)


def _one_by_one(x, kernel, padding, stride=1):
    strides = (stride, stride) if isinstance(stride, int) else stride
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _in_pairs(x, kernel, padding):
    """Two neighbouring pixels of the output by one window, which has a column more."""
    kh, kw, i, o = kernel.shape
    first, second = (jnp.pad(kernel, ((0, 0), side, (0, 0), (0, 0))) for side in ((0, 1), (1, 0)))
    both = jnp.stack([first, second], axis=3).reshape(kh, kw + 1, i, 2 * o)
    pairs = _one_by_one(x, both, padding, (1, 2))
    b, rows, columns, _ = pairs.shape
    return pairs.reshape(b, rows, 2 * columns, o)


def _convolve_forward(x, kernel, stride, padding):
    x = jax.lax.optimization_barrier(x)
    return _convolution(x, kernel, stride, padding), (x, kernel)


def _convolve_backward(stride, padding, operands, slope):
    x, kernel = operands
    slope = jax.lax.optimization_barrier(slope)
    sides = zip(kernel.shape[:2], padding, strict=True)
    beyond = tuple((size - 1 - before, size - 1 - after) for size, (before, after) in sides)
    _, pull = jax.vjp(lambda x, kernel: _one_by_one(x, kernel, padding, stride), x, kernel)

    def as_usual(x, slope):
        del x
        return pull(slope)[1]

    def turned(x, slope):
        """The gradient as a convolution of the slope by `x`, whose larger operand is the window.

        XLA turns the image of a convolution on a CPU so that channels come first, which costs it
        more than the convolution; a window's channels stay last.
        """
        numbers = ("CHWN", "IHWO", "HWCN")
        found = jax.lax.conv_general_dilated(slope, x, (1, 1), beyond, dimension_numbers=numbers)
        return jnp.flip(found, (0, 1))

    narrower = stride == 1 and slope.shape[-1] < x.shape[-1]
    of_kernel = jax.lax.platform_dependent(
        x, slope, cpu=turned if narrower else as_usual, default=as_usual
    )
    if stride == 1:
        of_x = _convolution(slope, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), 1, beyond)
    else:
        (of_x, _) = pull(slope)
    return at_once(of_x, of_kernel)


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
    sixteen products for a cell instead of thirty-six, equal up to rounding. Of a wide `x`, products
    cost more than sums: nine do, of each tap with the cell's pixel, added up over neighbours.
    """
    if x.shape[-1] < _WIDE:
        return _sub_pixel(x, kernel, _UPSAMPLED_TAPS)
    i, o = kernel.shape[2:]
    taps = product(x, kernel.transpose(2, 0, 1, 3).reshape(i, 9 * o))
    taps = widened(taps).reshape(*x.shape[:3], 3, 3, o)
    return _met(_met(taps, axis=1), axis=2).astype(x.dtype)


_WIDE = 256
"""From so many channels on nine products and their sums are faster than sixteen, on a CPU."""


def _met(taps: Float[Array, "b h w 3 *o"], axis: int) -> Float[Array, "b _h _w *o"]:
    """The sums over a kernel's three taps of what they meet along `axis`, upsampled by 2.

    `taps` are the products of each pixel with each tap. At the first position of a pixel the
    first tap meets the pixel before, at the second the last tap meets the one after.
    """
    first, middle, last = (taps[:, :, :, k] for k in range(3))
    count = middle.shape[axis]
    sides = [(0, 0)] * middle.ndim
    sides[axis] = (1, 1)
    before = jax.lax.slice_in_dim(jnp.pad(first, sides), 0, count, axis=axis)
    after = jax.lax.slice_in_dim(jnp.pad(last, sides), 2, count + 2, axis=axis)
    both = jnp.stack([before + middle + last, first + middle + after], axis + 1)
    return both.reshape(*middle.shape[:axis], 2 * count, *middle.shape[axis + 1 :])


def convolve_transposed(
    x: Float[Array, "b h w i"], kernel: Float[Array, "4 4 i o"]
) -> Float[Array, "b 2*h 2*w o"]:
    """PyTorch's transposed convolution with stride 2 and padding 1 (weights_spec 5.4).

    The map with zeros between its pixels is not made: each position of a cell meets four taps.
    """
    return _sub_pixel(x, kernel, _TRANSPOSED_TAPS)


@jax.custom_vjp
def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w c"]:
    """The largest of 3x3 pixels around every second one: half the map, rounded up.

    The gradient goes to the first of equals, as PyTorch's does. XLA's own finds their places by
    five arrays of the size of `x`.
    """
    sides = ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), sides)


def _max_pool_forward(x):
    x = jax.lax.optimization_barrier(x)
    pooled = max_pool(x)
    columns = _triples(x, axis=2)
    largest = jnp.maximum(jnp.maximum(*columns[:2]), columns[2])
    rows = _triples(largest, axis=1)
    row = _first(rows, pooled)
    before, first, second = _triples(_first(columns, largest), axis=1)
    column = jnp.where(row == 0, before, jnp.where(row == 1, first, second))
    return pooled, (3 * row + column, jnp.zeros((0, *x.shape[1:])))


def _max_pool_backward(kept, slope):
    place, like = kept
    slope = jax.lax.optimization_barrier(slope)
    b, rows, columns, c = slope.shape
    _, h, w, _ = like.shape

    def of(row: int, column: int) -> Float[Array, "b _h _w c"]:
        """The slope where the largest is at this row and column of the window.

        Row 0 is that before the window's own pair of rows, so it belongs to the pair before.
        """
        chosen = jnp.where(place == 3 * row + column, slope, 0)
        if row == 0:
            chosen = jnp.pad(chosen[:, 1:], ((0, 0), (0, 1), (0, 0), (0, 0)))
        if column == 0:
            chosen = jnp.pad(chosen[:, :, 1:], ((0, 0), (0, 0), (0, 1), (0, 0)))
        return chosen

    even = jnp.stack([of(1, 1), of(1, 0) + of(1, 2)], axis=3)
    corners = of(0, 0) + of(0, 2) + of(2, 0) + of(2, 2)
    odd = jnp.stack([of(0, 1) + of(2, 1), corners], axis=3)
    whole = jnp.stack([even, odd], axis=2).reshape(b, 2 * rows, 2 * columns, c)
    return (whole[:, :h, :w],)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _triples(x: Float[Array, "b _h _w c"], axis: int) -> list[Float[Array, "b _h _w c"]]:
    """Of every pair along `axis`: the one before it, its first and its second.

    What lies beyond the ends is the smallest of its type.
    """
    smallest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else 0
    sides = [(0, 0)] * x.ndim
    sides[axis] = (2, x.shape[axis] % 2)
    x = jnp.pad(x, sides, constant_values=smallest)
    count = x.shape[axis] // 2
    pairs = x.reshape(*x.shape[:axis], count, 2, *x.shape[axis + 1 :])
    first, second = (jax.lax.index_in_dim(pairs, k, axis + 1, keepdims=False) for k in (0, 1))
    later = partial(jax.lax.slice_in_dim, start_index=1, limit_index=count, axis=axis)
    before = jax.lax.slice_in_dim(second, 0, count - 1, axis=axis)
    return [before, later(first), later(second)]


def _first(triple: list[Array], largest: Array) -> UInt8[Array, "*shape"]:
    """Which of three is the first that is the largest."""
    last = jnp.where(triple[1] == largest, 1, 2)
    return jnp.where(triple[0] == largest, 0, last).astype(jnp.uint8)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise_by_batch(
    x: Float[Array, "b h w c"], scale: Float[Array, " c"], bias: Float[Array, " c"], epsilon: float
) -> tuple[Float[Array, "b h w c"], Float[Array, " c"], Float[Array, " c"]]:
    """`x` normalised by its own statistics, and these: mean and biased variance of each channel."""
    return _by_batch_forward(x, scale, bias, epsilon)[0]


def _by_batch_forward(x, scale, bias, epsilon):
    x = jax.lax.optimization_barrier(x)
    count = x.size // x.shape[-1]
    wide = widened(x)
    mean = channel_sums(wide) / count
    var = channel_sums(jnp.square(wide - mean)) / count
    inverse = jax.lax.rsqrt(var + epsilon)
    factor = scale * inverse
    y = (wide * factor + (bias - mean * factor)).astype(x.dtype)
    return (y, mean, var), (x, scale, mean, inverse)


def _by_batch_backward(epsilon, kept, slopes):
    """The gradient of Ioffe and Szegedy 2015 (arXiv 1502.03167, section 3)."""
    del epsilon
    x, scale, mean, inverse = kept
    slope = widened(jax.lax.optimization_barrier(slopes[0]))
    count = x.size // x.shape[-1]
    centred = widened(x) - mean
    of_bias = channel_sums(slope)
    of_scale = channel_sums(slope * centred) * inverse
    of_x = scale * inverse * (slope - of_bias / count - centred * (of_scale * inverse / count))
    return at_once(of_x.astype(x.dtype), of_scale, of_bias)


normalise_by_batch.defvjp(_by_batch_forward, _by_batch_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise_each(
    x: Float[Array, "b *n c"], scale: Float[Array, " c"], bias: Float[Array, " c"], epsilon: float
) -> Float[Array, "b *n c"]:
    """`x` normalised over its last axis."""
    return _each_forward(x, scale, bias, epsilon)[0]


def _each_forward(x, scale, bias, epsilon):
    x = jax.lax.optimization_barrier(x)
    wide = widened(x)
    mean = _row_means(wide)
    inverse = jax.lax.rsqrt(_row_means(jnp.square(wide - mean)) + epsilon)
    y = (wide - mean) * inverse * scale + bias
    return y.astype(x.dtype), (x, scale, mean, inverse)


def _each_backward(epsilon, kept, slope):
    """The gradient of Ba et al. 2016 (arXiv 1607.06450)."""
    del epsilon
    x, scale, mean, inverse = kept
    slope = widened(jax.lax.optimization_barrier(slope))
    normal = (widened(x) - mean) * inverse
    scaled = slope * scale
    of_x = inverse * (scaled - _row_means(scaled) - normal * _row_means(scaled * normal))
    return at_once(of_x.astype(x.dtype), channel_sums(slope * normal), channel_sums(slope))


normalise_each.defvjp(_each_forward, _each_backward)
