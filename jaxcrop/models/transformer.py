"""What the vision transformers share."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxcrop.models.draws import Draws
from jaxcrop.models.layers import Linear
from jaxcrop.models.primitives import add_bias, at_once, channel_sums, product, widened


@jax.custom_vjp
def attend(
    query: Float[Array, "b *n heads t d"],
    key: Float[Array, "b *n heads t d"],
    value: Float[Array, "b *n heads t d"],
    bias: Float[Array, "*n heads t t"] | None = None,
    mask: Float[Array, "*n #heads t t"] | None = None,
) -> Float[Array, "b *n t heads*d"]:
    """Attention by the softmax of the products of queries and keys, the heads side by side.

    `bias`, which learns, and `mask`, which does not, are added to the products first.

    Products and softmax are in float32 at least. The exponentials are divided by their sums behind
    the product with the values, which has fewer numbers; the gradient needs neither the quotients
    nor the scores (Dao et al. 2022, arXiv 2205.14135, appendix B).
    """
    return _attend_forward(query, key, value, bias, mask)[0]


def _attend_forward(query, key, value, bias, mask):
    scores = _wide_product("...qd,...kd->...qk", query, key)
    for added in (bias, mask):
        scores = scores if added is None else scores + added
    powers = jnp.exp(scores - row_maxima(scores))
    total = powers.sum(axis=-1, keepdims=True)
    powers = jax.lax.optimization_barrier(powers.astype(value.dtype))
    out = (_wide_product("...qk,...kd->...qd", powers, value) / total).astype(value.dtype)
    out = out.swapaxes(-3, -2).reshape(*query.shape[:-3], query.shape[-2], -1)
    out = jax.lax.optimization_barrier(out)  # which is kept as it is used
    return out, (query, key, value, bias, powers, total, out)


def _attend_backward(kept, slope):
    query, key, value, bias, powers, total, out = kept
    slope = jax.lax.optimization_barrier(slope)
    heads, tokens, depth = query.shape[-3:]
    slope, out = (
        x.reshape(*x.shape[:-2], tokens, heads, depth).swapaxes(-3, -2) for x in (slope, out)
    )
    scaled = (widened(slope) / total).astype(slope.dtype)
    of_value = jnp.einsum("...qk,...qd->...kd", powers, scaled)
    along = (widened(scaled) * widened(out)).sum(axis=-1, keepdims=True)
    of_scores = widened(powers) * (_wide_product("...qd,...kd->...qk", scaled, value) - along)
    of_scores = jax.lax.optimization_barrier(of_scores.astype(query.dtype))
    of_query = jnp.einsum("...qk,...kd->...qd", of_scores, key)
    of_key = jnp.einsum("...qk,...qd->...kd", of_scores, query)
    of_bias = None if bias is None else _summed(widened(of_scores), bias)
    return of_query, of_key, of_value, of_bias, None


def _summed(x: Array, like: Array) -> Array:
    """The sum of `x` over the axes along which `like` is broadcast to it."""
    leading = x.ndim - like.ndim
    axes = (*range(leading), *(leading + k for k, size in enumerate(like.shape) if size == 1))
    total = x.sum(axis=axes, keepdims=True).reshape(like.shape).astype(like.dtype)
    return jax.lax.optimization_barrier(total)


attend.defvjp(_attend_forward, _attend_backward)


def _wide_product(formula: str, a: Array, b: Array) -> Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(formula, a, b, preferred_element_type=wide)


def row_maxima(x: Float[Array, "*b n k"]) -> Float[Array, "*b n 1"]:
    """The largest value along the last axis.

    In two steps, of which XLA vectorises the first on a CPU, as it does no maximum along a row.
    """
    *leading, k = x.shape
    whole = k // 16 * 16
    first = x[..., :whole].reshape(*leading, -1, 16).max(axis=-2, initial=-jnp.inf)
    first = jax.lax.optimization_barrier(first).max(axis=-1, keepdims=True)
    return jnp.maximum(first, x[..., whole:].max(axis=-1, keepdims=True, initial=-jnp.inf))


@jax.custom_vjp
def gelu_product(
    x: Float[Array, "b *n i"], bias: Float[Array, " i"], kernel: Float[Array, "i o"]
) -> Float[Array, "b *n o"]:
    """The exact GELU of `x + bias`, multiplied by `kernel`.

    The gradient computes the GELU again: kept, it would be the largest of a block's activations.
    """
    return product(_biased_gelu(x, bias), kernel)


def _gelu_product_forward(x, bias, kernel):
    x = jax.lax.optimization_barrier(x)
    return gelu_product(x, bias, kernel), (x, bias, kernel)


def _gelu_product_backward(kept, slope):
    x, bias, kernel = kept
    # Behind barriers, or XLA would keep in memory what it has computed of x before.
    x, slope = jax.lax.optimization_barrier((x, slope))
    _, of_product = jax.vjp(product, _biased_gelu(x, bias), kernel)
    slope, of_kernel = of_product(slope)
    wide = widened(jax.lax.optimization_barrier(x)) + bias
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * jnp.pi) ** -0.5
    slope = (_normal_share(wide) + wide * density) * widened(slope)
    slope = jax.lax.optimization_barrier(slope.astype(x.dtype))
    return *at_once(slope, channel_sums(widened(slope))), of_kernel


gelu_product.defvjp(_gelu_product_forward, _gelu_product_backward)


def _biased_gelu(x: Float[Array, "b *n c"], bias: Float[Array, " c"]) -> Float[Array, "b *n c"]:
    """The exact GELU of `x + bias`, by the error function as PyTorch computes it.

    JAX's default is the tanh approximation, which is 4.7e-4 off (weights_spec 5.2); its exact one
    is by erfc, which takes twice as long.
    """
    wide = widened(x) + bias
    return (wide * _normal_share(wide)).astype(x.dtype)


def _normal_share(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """How much of the standard normal distribution lies below `x`."""
    return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


class Mlp(nnx.Module):
    """Two linear layers, four times as wide between them, with the exact (erf) GELU."""

    def __init__(self, channels: int, *, rngs: Draws):
        self.fc1 = Linear(channels, 4 * channels, rngs=rngs)
        self.fc2 = Linear(4 * channels, channels, rngs=rngs)

    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        x = product(x, self.fc1.kernel[...].astype(x.dtype))
        x = gelu_product(x, self.fc1.bias[...], self.fc2.kernel[...].astype(x.dtype))
        return add_bias(x, self.fc2.bias[...])
