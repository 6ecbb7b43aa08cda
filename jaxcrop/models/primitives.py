"""What the layers compute, with gradients that XLA makes good programs of.

Each function has its gradient written out. Barriers keep what makes the operands of a product or a
convolution out of it: XLA would compute the whole chain of layers since the last one again for
each user, and badly where an operand must be transposed. On a CPU, sums over many values go in two
steps, of which XLA vectorises the first and spreads it over the cores. On an accelerator what
counts is how often a large array is read.

Each rule is jitted, to be traced once for a shape and not once for a layer.
"""

from functools import partial
from math import gcd

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from jaxcrop.compiling import on_cpu

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
    return jax.lax.optimization_barrier(gradients) if on_cpu() else gradients


def once(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x` as a CPU is to compute it, once for all that use it.

    An accelerator computes what takes a pass over memory again within each user of it.
    """
    return jax.lax.optimization_barrier(x) if on_cpu() else x


def channel_sums(x: Float[Array, "b *n c"]) -> Float[Array, " c"]:
    """The sum over all but the last axis."""
    if not on_cpu():
        return x.sum(axis=range(x.ndim - 1))
    b, *_, c = x.shape
    x = x.reshape(b, -1, c)
    count = x.shape[1]
    beside = gcd(count, max(1, _LANES // c))
    x = x.reshape(b, count // beside, beside * c)
    whole = x.shape[1] // _ROWS * _ROWS
    first = x[:, :whole].reshape(b, -1, _ROWS, beside * c).sum(axis=2)
    sums = jax.lax.optimization_barrier(first).reshape(-1, c).sum(axis=0)
    return sums + x[:, whole:].reshape(-1, c).sum(axis=0) if whole < x.shape[1] else sums


def _sums_at_once(*parts: Float[Array, "b *n c"]) -> tuple[Float[Array, " c"], ...]:
    """The `channel_sums` of each; on an accelerator by one pass over what they are made of."""
    if on_cpu():
        return tuple(map(channel_sums, parts))

    def added(sums, more):
        return tuple(one + other for one, other in zip(sums, more, strict=True))

    zeros = tuple(jnp.zeros((), part.dtype) for part in parts)
    return tuple(jax.lax.reduce(parts, zeros, added, tuple(range(parts[0].ndim - 1))))


def _row_means(x: Float[Array, "*n c"]) -> Float[Array, "*n 1"]:
    """The mean over the last axis."""
    if not on_cpu():
        return x.mean(axis=-1, keepdims=True)
    *leading, c = x.shape
    lanes = gcd(c, _ROWS)
    sums = x.reshape(*leading, c // lanes, lanes).sum(axis=-2)
    return jax.lax.optimization_barrier(sums).sum(axis=-1, keepdims=True) / c


@jax.custom_vjp
def add_bias(x: Float[Array, "b *n c"], bias: Float[Array, " c"]) -> Float[Array, "b *n c"]:
    """`x + bias` in the type of `x`, the sum and so the bias's gradient in float32 at least."""
    return (widened(x) + bias).astype(x.dtype)


@jax.jit
def _add_bias_backward(_, slope):
    return at_once(slope, channel_sums(widened(slope)))


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), None), _add_bias_backward)


@jax.custom_vjp
def product(x: Float[Array, "*n i"], kernel: Float[Array, "i o"]) -> Float[Array, "*n o"]:
    """The matrix product over the last axis of `x`."""
    return jax.lax.optimization_barrier(x) @ kernel


@jax.jit
def _product_forward(x, kernel):
    x = jax.lax.optimization_barrier(x)
    return x @ kernel, (x, kernel)


@jax.jit
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


@jax.custom_vjp
def joined(x: Float[Array, "*shape"], shortcut: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The end of a residual block: the sum, where it is positive.

    Kept as it is, and its gradient too: what uses them would add up again, each for itself.
    """
    return jax.lax.optimization_barrier(jnp.maximum(x + shortcut, 0))


@jax.jit
def _joined_forward(x, shortcut):
    sums = joined(x, shortcut)
    return sums, sums


@jax.jit
def _joined_backward(sums, slope):
    slope = jax.lax.optimization_barrier(jnp.where(sums > 0, slope, 0))
    return slope, slope


joined.defvjp(_joined_forward, _joined_backward)


@jax.custom_vjp
def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w c"]:
    """The largest of 3x3 pixels around every second one: half the map, rounded up.

    The gradient goes to the first of equals, as PyTorch's does. XLA's own finds their places by
    five arrays of the size of `x`.
    """
    sides = ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), sides)


@jax.jit
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


@jax.jit
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


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalise_by_batch(
    x: Float[Array, "b h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    near: Float[Array, " c"],
    epsilon: float,
) -> tuple[Float[Array, "b h w c"], Float[Array, " c"], Float[Array, " c"]]:
    """`x` normalised by its own statistics, and these: mean and biased variance of each channel.

    `near` are means of earlier batches. The nearer they are, the smaller is the rounding; they have
    no gradient.
    """
    return _by_batch_forward(x, scale, bias, near, epsilon)[0]


def _statistics(
    x: Float[Array, "b h w c"], near: Float[Array, " c"]
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and biased variance of each channel; on an accelerator, by a single pass over `x`."""
    count = x.size // x.shape[-1]
    if on_cpu():
        mean = channel_sums(x) / count
        return mean, channel_sums(jnp.square(x - mean)) / count
    off = x - near
    beyond, squares = (total / count for total in _sums_at_once(off, jnp.square(off)))
    return near + beyond, jnp.maximum(squares - jnp.square(beyond), 0)


@partial(jax.jit, static_argnums=(4,))
def _by_batch_forward(x, scale, bias, near, epsilon):
    x = once(x)
    wide = widened(x)
    mean, var = _statistics(wide, near)
    inverse = jax.lax.rsqrt(var + epsilon)
    factor = scale * inverse
    y = (wide * factor + (bias - mean * factor)).astype(x.dtype)
    return (y, mean, var), (x, scale, mean, inverse)


@partial(jax.jit, static_argnums=(0,))
def _by_batch_backward(epsilon, kept, slopes):
    """The gradient of Ioffe and Szegedy 2015 (arXiv 1502.03167, section 3)."""
    del epsilon
    x, scale, mean, inverse = kept
    slope = widened(once(slopes[0]))
    count = x.size // x.shape[-1]
    centred = widened(x) - mean
    of_bias, along = _sums_at_once(slope, slope * centred)
    of_scale = along * inverse
    of_x = scale * inverse * (slope - of_bias / count - centred * (of_scale * inverse / count))
    return *at_once(of_x.astype(x.dtype), of_scale, of_bias), jnp.zeros_like(mean)


normalise_by_batch.defvjp(_by_batch_forward, _by_batch_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise_each(
    x: Float[Array, "b *n c"], scale: Float[Array, " c"], bias: Float[Array, " c"], epsilon: float
) -> Float[Array, "b *n c"]:
    """`x` normalised over its last axis."""
    return _each_forward(x, scale, bias, epsilon)[0]


@partial(jax.jit, static_argnums=(3,))
def _each_forward(x, scale, bias, epsilon):
    x = jax.lax.optimization_barrier(x)
    wide = widened(x)
    mean = _row_means(wide)
    inverse = jax.lax.rsqrt(_row_means(jnp.square(wide - mean)) + epsilon)
    y = (wide - mean) * inverse * scale + bias
    return y.astype(x.dtype), (x, scale, mean, inverse)


@partial(jax.jit, static_argnums=(0,))
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
