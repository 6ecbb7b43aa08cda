"""2-D convolutions, each computed in the way that is fast on what runs it.

XLA's convolution on a CPU gathers the pixels around each one and multiplies them by the kernel. The
ways here need fewer products or gather less. An accelerator's are its library's, made for many
channels: where there are few, the pixels of a 2x2 cell become the channels of one. All differ from
the plain convolution by rounding alone.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcrop.compiling import on_cpu
from jaxcrop.models.primitives import at_once, product, widened

Padding = tuple[tuple[int, int], tuple[int, int]]


def convolve(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"], stride: int, padding: Padding
) -> Float[Array, "b h2 w2 o"]:
    """2-D convolution with `padding` zeros before and after each axis."""
    if not on_cpu() and _cells_pay(x, kernel.shape, stride, padding):
        return _in_cells(x, kernel, stride, padding)
    return _convolve(x, kernel, stride, padding)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, stride, padding):
    return _convolve_forward(x, kernel, stride, padding)[0]


@partial(jax.jit, static_argnums=(2, 3))
def _convolve_forward(x, kernel, stride, padding):
    x = jax.lax.optimization_barrier(x)
    if on_cpu() and stride == 1:
        return _way(x, kernel.shape, padding)(x, kernel), (x, kernel)
    return _as_usual(x, kernel, padding, (stride, stride)), (x, kernel)


@partial(jax.jit, static_argnums=(0, 1))
def _convolve_backward(stride, padding, operands, slope):
    x, kernel = operands
    slope = jax.lax.optimization_barrier(slope)
    if not on_cpu():
        usual = partial(_as_usual, padding=padding, strides=(stride, stride))
        _, pull = jax.vjp(usual, x, kernel)
        return at_once(*pull(slope))
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    beyond = _beyond(x.shape, kernel.shape[:2], stride, padding)
    if stride == 1:
        turned = jax.lax.optimization_barrier(turned)
        of_x = _way(slope, turned.shape, beyond)(slope, turned)
    else:
        of_x = _as_usual(slope, turned, beyond, spread=(stride, stride))
    return at_once(of_x, _kernel_gradient(x, slope, kernel.shape[:2], stride, padding))


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _way(x: Array, kernel_shape: Sequence[int], padding: Padding) -> Callable[..., Array]:
    """What convolves on a CPU with stride 1."""
    if _fours_pay(x, kernel_shape, padding):
        return partial(_in_fours, padding=padding)
    columns = x.shape[2] + sum(padding[1]) - kernel_shape[1] + 1
    if min(kernel_shape[2:]) < _NARROW and columns % 2 == 0:
        return partial(_in_pairs, padding=padding)
    return partial(_as_usual, padding=padding)


def _as_usual(x, kernel, padding, strides=(1, 1), *, spread=(1, 1), taps_spread=(1, 1)):
    """XLA's convolution, of pixels and of taps with so many places from one to the next.

    Always in this order of axes: in a loop on a CPU others take forty times as long.
    """
    if on_cpu() and kernel.shape[0] * kernel.shape[1] > x.shape[1] * x.shape[2]:
        # XLA would swap the two, and with them the axes: it gets as many pixels as taps.
        sides = ((*side, places - 1) for side, places in zip(padding, spread, strict=True))
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
        x, padding, spread = jax.lax.optimization_barrier(x), ((0, 0), (0, 0)), (1, 1)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        lhs_dilation=spread,
        rhs_dilation=taps_spread,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _beyond(shape: Sequence[int], size: Sequence[int], stride: int, padding: Padding) -> Padding:
    """The padding of an output that is convolved back to the size of the input."""

    def of_axis(count: int, taps: int, sides: tuple[int, int]) -> tuple[int, int]:
        reached = (count + sum(sides) - taps) // stride * stride  # by the last window
        return taps - 1 - sides[0], count - 1 - reached + sides[0]

    return tuple(map(of_axis, shape[1:3], size, padding))


def _kernel_gradient(
    x: Float[Array, "b h w i"],
    slope: Float[Array, "b h2 w2 o"],
    size: tuple[int, int],
    stride: int,
    padding: Padding,
) -> Float[Array, "kh kw i o"]:
    """The kernel's gradient of a convolution, on a CPU."""
    shape = *size, x.shape[-1], slope.shape[-1]
    if stride == 1 and _fours_pay(x, shape, padding):
        found = _turned_gradient_in_fours(x, slope, size, padding)
    elif stride == 1 and slope.shape[-1] < x.shape[-1]:
        found = _turned_gradient(x, slope, size, padding)
    else:
        # Each tap's pixels are one window of the slope's, a stride from one to the next.
        reached = (stride * (count - 1) for count in slope.shape[1:3])
        sides = tuple(
            (before, taps + last - count - before)
            for taps, last, count, (before, _) in zip(
                size, reached, x.shape[1:3], padding, strict=True
            )
        )
        images, windows = x.transpose(3, 1, 2, 0), slope.transpose(1, 2, 0, 3)
        found = _as_usual(images, windows, sides, taps_spread=(stride, stride))
        return found.transpose(1, 2, 0, 3)
    return jnp.flip(found, (1, 2)).transpose(1, 2, 3, 0)


def _turned_gradient(x, slope, size, padding) -> Float[Array, "o kh kw i"]:
    """The kernel's gradient, each way from its end, as a convolution of the slope by `x`.

    XLA turns the image of a convolution so that channels come first, which costs it more than the
    convolution where these are many; a window's channels stay last.
    """
    beyond = _beyond(x.shape, size, 1, padding)
    return _as_usual(slope.transpose(3, 1, 2, 0), x.transpose(1, 2, 0, 3), beyond)


_NARROW = 16
"""Below so many channels it takes longer to gather pixels than to multiply them."""


def _in_pairs(x, kernel, padding):
    """Two neighbouring pixels of the output by one window, which has a column more."""
    kh, kw, i, o = kernel.shape
    first, second = (jnp.pad(kernel, ((0, 0), side, (0, 0), (0, 0))) for side in ((0, 1), (1, 0)))
    both = jnp.stack([first, second], axis=3).reshape(kh, kw + 1, i, 2 * o)
    pairs = _as_usual(x, both, padding, strides=(1, 2))
    b, rows, columns, _ = pairs.shape
    return pairs.reshape(b, rows, 2 * columns, o)


_PIXELS, _CHANNELS = 512, 64
"""From so many on, of each, six products save more than their sums take."""

_OF_PIXELS = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_OF_TAPS = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_OF_PRODUCTS = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)
"""Four outputs of three taps by six products: `_OF_PRODUCTS @ ((_OF_TAPS @ t) * (_OF_PIXELS @ x))`.

Winograd's F(4, 3), as in Lavin and Gray 2015 (arXiv 1509.09308, section 4.3).
"""


def _fours_pay(x: Array, kernel_shape: Sequence[int], padding: Padding) -> bool:
    b, h, w, _ = x.shape
    fits = kernel_shape[1] == 3 and padding[1] == (1, 1) and w % 4 == 0
    large = b * h * w >= _PIXELS and min(kernel_shape[2:]) >= _CHANNELS
    return fits and large and x.dtype == jnp.float32


def _in_fours(x, kernel, padding):
    """Four neighbouring pixels of a row by six products for each row of taps, in place of twelve.

    The errors are some 2e-6 of the largest value, twice those of a plain convolution.
    """
    taps = _combinations(_OF_TAPS, [kernel[:, k : k + 1] for k in range(3)])
    products = [
        _as_usual(pixels, tap, (padding[0], (0, 0)))
        for pixels, tap in zip(_pixels_of_fours(x), taps, strict=True)
    ]
    fours = jnp.stack(_combinations(_OF_PRODUCTS, products), axis=3)
    b, h, w, _, o = fours.shape
    return fours.reshape(b, h, 4 * w, o)


def _turned_gradient_in_fours(x, slope, size, padding) -> Float[Array, "o kh kw i"]:
    x, slope = jax.lax.optimization_barrier((x, slope))  # else XLA keeps the sums of the way there
    b, h, w, o = slope.shape
    columns = slope.reshape(b, h, w // 4, 4, o)
    slopes = _combinations(_OF_PRODUCTS.T, [columns[:, :, :, k] for k in range(4)])
    taps = [
        _turned_gradient(pixels, of_products, (size[0], 1), (padding[0], (0, 0)))
        for pixels, of_products in zip(_pixels_of_fours(x), slopes, strict=True)
    ]
    return jnp.concatenate(_combinations(_OF_TAPS.T[::-1], taps), axis=2)


def _pixels_of_fours(x: Float[Array, "b h w i"]) -> list[Float[Array, "b h w/4 i"]]:
    """The combinations of every four pixels of a row, the one before them and the one after."""
    b, h, w, i = x.shape
    fours = x.reshape(b, h, w // 4, 4, i)
    four = [fours[:, :, :, k] for k in range(4)]
    before = jnp.pad(four[3][:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0)))
    after = jnp.pad(four[0][:, :, 1:], ((0, 0), (0, 0), (0, 1), (0, 0)))
    return _combinations(_OF_PIXELS, [before, *four, after])


def _combinations(factors: Float[np.ndarray, "n k"], parts: Sequence[Array]) -> list[Array]:
    """The sum of the parts for each row of factors, each computed by itself."""
    sums = []
    for row in factors.tolist():
        terms = [
            part if factor == 1 else factor * part
            for factor, part in zip(row, parts, strict=True)
            if factor
        ]
        sums.append(jax.lax.optimization_barrier(sum(terms[1:], terms[0])))
    return sums


_FEW = 32
"""Below so many channels a cell's four pixels fill an accelerator's units better than one."""


def _cells_pay(x: Array, kernel_shape: Sequence[int], stride: int, padding: Padding) -> bool:
    kh, kw, i, o = kernel_shape
    same = padding == ((kh // 2,) * 2, (kw // 2,) * 2) and kh % 2 == kw % 2 == 1
    whole = x.shape[1] % 2 == x.shape[2] % 2 == 0
    return same and whole and i < _FEW and (stride == 2 or (stride == 1 and o < _FEW))


def _in_cells(x, kernel, stride, padding):
    """The convolution of cells of 2x2 pixels, each as one of four times the channels.

    With stride 1 the output is made of cells as well. The kernel of cells holds each tap where it
    falls, and zeros.
    """
    b, h, w, i = x.shape
    kh, kw, _, o = kernel.shape
    places = 2 // stride  # of the output in a cell, along an axis
    (above, rows), (left, columns) = (
        _cells_met(size, before, places)
        for size, (before, _) in zip((kh, kw), padding, strict=True)
    )

    def of_place(row: int, column: int) -> Float[Array, "rows 2 columns 2 i o"]:
        """The taps by the cells and the pixels in them that they meet from this place."""
        taps = _beside(kernel, 0, 2 * above - padding[0][0] + row, 2 * rows)
        taps = _beside(taps, 1, 2 * left - padding[1][0] + column, 2 * columns)
        return taps.reshape(rows, 2, columns, 2, i, o)

    places_of = [[of_place(row, column) for column in range(places)] for row in range(places)]
    taps = jnp.stack([jnp.stack(line) for line in places_of])
    taps = taps.transpose(2, 4, 3, 5, 6, 0, 1, 7).reshape(rows, columns, 4 * i, places**2 * o)
    cells = x.reshape(b, h // 2, 2, w // 2, 2, i).swapaxes(2, 3).reshape(b, h // 2, w // 2, 4 * i)
    # Channels in eights, as tensor cores take them.
    cells, taps = _beside(cells, 3, 0, -(-4 * i // 8) * 8), _beside(taps, 2, 0, -(-4 * i // 8) * 8)
    around = (above, rows - 1 - above), (left, columns - 1 - left)
    if around[0][0] != around[0][1] or around[1][0] != around[1][1]:
        # Libraries pad both sides alike, so XLA would make a padded copy of the cells.
        cells = _beside(_beside(cells, 1, above, h // 2 + rows - 1), 2, left, w // 2 + columns - 1)
        around = (0, 0), (0, 0)
    return _spread(_convolve(cells, taps, 1, around), places)


def _spread(cells: Float[Array, "b h w p*p*o"], places: int) -> Float[Array, "b p*h p*w o"]:
    """The pixels of cells, `places` to a side, that lie in their channels."""
    b, h, w, c = cells.shape
    pixels = cells.reshape(b, h, w, places, places, c // places**2).swapaxes(2, 3)
    return pixels.reshape(b, places * h, places * w, c // places**2)


def _cells_met(size: int, before: int, places: int) -> tuple[int, int]:
    """How many cells before its own a kernel reaches along an axis, and how many it meets."""
    first, last = (-before) // 2, (places - 1 + size - 1 - before) // 2
    return -first, last - first + 1


def _beside(x: Array, axis: int, before: int, size: int) -> Array:
    """`x` with zeros before it and after it, up to `size`, along an axis."""
    sides = [(0, 0)] * x.ndim
    sides[axis] = (before, size - before - x.shape[axis])
    return jnp.pad(x, sides)


def _sub_pixel(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "k k i o"],
    taps: Int[np.ndarray, "2 2 k"],
) -> Float[Array, "b 2*h 2*w o"]:
    """Four 2x2 convolutions of `x`, one for each position in a 2x2 cell of the output.

    `taps` says which of the kernel's taps along an axis, added up, the first and the second
    position of a cell have on two pixels: the one before and its own, or its own and the one after.
    An accelerator computes the four as one, over the pixels that any of them meets.
    """
    k, _, i, o = kernel.shape
    b, h, w, _ = x.shape
    flat = kernel.reshape(k * k, i * o)

    def kernel_of(row: int, column: int) -> Float[Array, "2 2 i o"]:
        both = np.einsum("ak,bl->abkl", taps[row], taps[column]).reshape(4, k * k)
        merged = jnp.matmul(both.astype(x.dtype), flat, precision="highest")
        return merged.reshape(2, 2, i, o)

    def cell(row: int, column: int) -> Float[Array, "b h w o"]:
        return convolve(x, kernel_of(row, column), 1, ((1 - row, row), (1 - column, column)))

    if on_cpu():
        rows = [jnp.stack([cell(row, 0), cell(row, 1)], axis=3) for row in (0, 1)]
        return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, o)
    kernels = [
        _beside(_beside(kernel_of(row, column), 0, row, 3), 1, column, 3)
        for row in (0, 1)
        for column in (0, 1)
    ]
    all_four = jnp.stack(kernels, axis=3).reshape(3, 3, i, 4 * o)
    return _spread(convolve(x, all_four, 1, ((1, 1), (1, 1))), 2)


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
