"""Linear classifiers of features, many at once: logistic regression, and heads trained by AdamW."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from jaxcrop.crops import NUM_CLASSES
from jaxcrop.data.sampling import Sampling

_MEMORY = 10
"""Steps that L-BFGS remembers."""

_SLOPE = 0.1
"""How much of the slope at its start a line search may leave."""

_HIGHEST = jax.lax.Precision.HIGHEST


class LinearClassifiers(NamedTuple):
    """Linear classifiers of the same features: scores are `x @ kernel + bias`.

    The bias of a class that a classifier was not shown is minus infinity.
    """

    kernel: Float[Array, "p d classes"]
    bias: Float[Array, "p classes"]

    def predict(self, x: Float[Array, "n d"]) -> UInt8[Array, "p n"]:
        """The class of each row by each classifier."""
        return _predict(self, x)

    def cost(
        self,
        x: Float[Array, "n d"],
        label: Int[Array, " n"],
        weight: Float[Array, "p n"],
        least: float = 1e-3,
    ) -> Float[Array, " p"]:
        """The mean cross-entropy of each classifier over the rows, each counted by its weight.

        A chance below `least` costs as much as `least`. NaN where no row has a weight.
        """
        return _cost(self, x, label, weight, least)


@jax.jit
def _predict(classifiers: LinearClassifiers, x: Float[Array, "n d"]) -> UInt8[Array, "p n"]:
    return _scores(x.astype(jnp.float32), *classifiers).argmax(-1).astype(jnp.uint8)


@jax.jit
def _cost(classifiers, x, label, weight, least) -> Float[Array, " p"]:
    chance = jax.nn.softmax(_scores(x.astype(jnp.float32), *classifiers))
    of_truth = jnp.take_along_axis(chance, label[None, :, None].astype(int), axis=2)[:, :, 0]
    return -(weight * jnp.log(jnp.maximum(of_truth, least))).sum(1) / weight.sum(1)


def _scores(
    x: Float[Array, "n d"], kernel: Float[Array, "p d classes"], bias: Float[Array, "p classes"]
) -> Float[Array, "p n classes"]:
    return jnp.einsum("nd,pdk->pnk", x, kernel, precision=_HIGHEST) + bias[:, None]


class Moments(NamedTuple):
    """Weighted mean and standard deviation of features; 1 where a feature does not vary."""

    mean: Float[Array, "*p d"]
    scale: Float[Array, "*p d"]

    def fold(self, kernel: Float[Array, "p d k"], bias: Float[Array, "p k"]) -> LinearClassifiers:
        """Classifiers of standardised features as classifiers of the features as they are."""
        kernel = kernel / self.scale[..., None]
        shift = jnp.einsum("...d,...dk->...k", self.mean, kernel, precision=_HIGHEST)
        return LinearClassifiers(kernel, bias - shift)


def moments(x: Float[Array, "n d"], weight: Float[Array, "*p n"]) -> Moments:
    """The moments of the rows of `x`, each counted by its weight."""
    share = weight / weight.sum(-1, keepdims=True)
    mean = jnp.matmul(share, x, precision=_HIGHEST)
    variance = jnp.matmul(share, jnp.square(x), precision=_HIGHEST) - jnp.square(mean)
    return _moments(mean, variance)


def fit_logistic(
    x: Float[Array, "n d"],
    label: Int[Array, " n"],
    weight: Float[Array, "p n"],
    l2: Float[Array, " p"],
    *,
    iterations: int = 200,
    tolerance: float = 1e-4,
    num_classes: int = NUM_CLASSES,
) -> LinearClassifiers:
    """Multinomial logistic regressions on the same rows, each with its own weights and penalty.

    Problem p minimises the mean cross-entropy by `weight[p]` plus `l2[p] / 2` times the squared
    norm of its kernel, on features that its weights standardise; scikit-learn's `C` is
    1 / (l2 * weight.sum()). Rows of weight 0 are not part of a problem, so training sets of any
    size, folds of a cross-validation and strengths of the penalty are one program. L-BFGS (Liu and
    Nocedal 1989), until no component of the gradient exceeds `tolerance`.
    """
    return _fit_logistic(
        jnp.asarray(x, jnp.float32),
        jnp.asarray(label),
        jnp.asarray(weight, jnp.float32),
        jnp.asarray(l2, jnp.float32),
        tolerance=tolerance,
        iterations=iterations,
        num_classes=num_classes,
    )


@partial(jax.jit, static_argnames=("iterations", "num_classes"))
def _fit_logistic(x, label, weight, l2, *, tolerance, iterations, num_classes):
    # Centred by what the problems share first: their own moments are then near 0 and 1, and exact.
    common = moments(x, weight.sum(0))
    x = (x - common.mean) / common.scale
    own = moments(x, weight)
    share = weight / weight.sum(1, keepdims=True)
    truth = jax.nn.one_hot(label, num_classes)
    shown = jnp.einsum("pn,nk->pk", share, truth) > 0
    never = jnp.where(shown, 0, -jnp.inf)

    def scores(kernel, bias):
        return _scores(x, *own.fold(kernel, bias))

    def slopes(state):
        """The gradient of each problem's loss."""
        kernel, _, logits = state
        off = share[:, :, None] * (jax.nn.softmax(logits + never[:, None]) - truth)
        _, pull = jax.vjp(scores, *start[:2])
        of_kernel, of_bias = pull(off)
        return of_kernel + l2[:, None, None] * kernel, of_bias

    def slope_along(step, state, ahead):
        """First and second derivative of each problem's loss along the line searched."""
        kernel, _, logits = state
        to_kernel, _, to_logits = ahead
        chance = jax.nn.softmax(logits + step[:, None, None] * to_logits + never[:, None])
        mean = (chance * to_logits).sum(-1)
        spread = (chance * jnp.square(to_logits)).sum(-1) - jnp.square(mean)
        first = (share * (mean - (truth * to_logits).sum(-1))).sum(1)
        second = (share * spread).sum(1) + l2 * jnp.square(to_kernel).sum((1, 2))
        reached = kernel + step[:, None, None] * to_kernel
        return first + l2 * (reached * to_kernel).sum((1, 2)), second

    memory = optax.scale_by_lbfgs(_MEMORY)
    remember = jax.vmap(memory.update)

    def go_on(carry):
        _, _, gradient, _, count = carry
        return (count < iterations) & (_largest(gradient) > tolerance).any()

    def iterate(carry):
        state, past, gradient, stuck, count = carry
        done = stuck | (_largest(gradient) <= tolerance)
        towards, past = remember(gradient, past, state[:2])
        kernel, bias = (-jnp.where(_spread(done, d), 0, d) for d in towards)
        ahead = kernel, bias, scores(kernel, bias)
        step = _line_search(lambda step: slope_along(step, state, ahead), len(weight))
        state = tuple(a + _spread(step, d) * d for a, d in zip(state, ahead, strict=True))
        return state, past, slopes(state), done | (step == 0), count + 1

    problems = (len(weight), x.shape[1], num_classes)
    kernel, bias = jnp.zeros(problems), jnp.zeros((problems[0], num_classes))
    start = kernel, bias, jnp.zeros((problems[0], len(x), num_classes))
    stuck = jnp.zeros(problems[0], bool)
    carry = start, jax.vmap(memory.init)(start[:2]), slopes(start), stuck, 0
    (kernel, bias, _), *_ = jax.lax.while_loop(go_on, iterate, carry)
    folded = own.fold(kernel, bias)
    return common.fold(folded.kernel, folded.bias + never)


def _largest(gradient: tuple[Array, Array]) -> Float[Array, " p"]:
    return jnp.maximum(*(jnp.abs(part).max(range(1, part.ndim)) for part in gradient))


def _spread(of_problem: Array, like: Array) -> Array:
    return of_problem.reshape(-1, *[1] * (like.ndim - 1))


def _line_search(slope_along, problems: int) -> Float[Array, " p"]:
    """Where each of several convex functions of a step is nearly at its least.

    Newton's method on the slope, kept between a step that is too short and one that is too long;
    the strong Wolfe conditions hold in the end. 0 where a function does not fall at the start.
    """
    begin, _ = slope_along(jnp.zeros(problems))
    falls = begin < 0

    def ends(step):
        first, second = slope_along(step)
        return first, second, jnp.abs(first) > -_SLOPE * begin

    def search(carry):
        step, low, high, first, second, wanting, count = carry
        low = jnp.where(first < 0, step, low)
        high = jnp.where(first > 0, step, high)
        newton = step - first / jnp.maximum(second, 1e-30)
        between = jnp.where(jnp.isinf(high), 10 * step, (low + high) / 2)
        inside = (newton > low) & (newton < jnp.minimum(high, 10 * step))
        step = jnp.where(wanting, jnp.where(inside, newton, between), step)
        first, second, wanting = ends(step)
        return step, low, high, first, second, wanting & falls, count + 1

    one = jnp.ones_like(begin)
    first, second, wanting = ends(one)
    carry = one, 0 * one, jnp.inf * one, first, second, wanting & falls, 0
    step, *_ = jax.lax.while_loop(lambda c: c[5].any() & (c[6] < 20), search, carry)
    return jnp.where(falls, step, 0)


def train_heads(
    features: Float[Array, "chips pixels d"],
    label: Int[Array, "chips pixels"],
    weight: Float[Array, "chips pixels"],
    members: Sequence[Sequence[int]],
    *,
    learning_rate: Sequence[float],
    seeds: Sequence[int],
    steps: int,
    batch_size: int = 8,
    weight_decay: float = 0.01,
    num_classes: int = NUM_CLASSES,
) -> LinearClassifiers:
    """Linear heads, each trained by AdamW on the sampled pixels of its own chips.

    Head h sees batches of chips of `members[h]`, in the order that its seed gives
    (`jaxcrop.data.sampling.Sampling`), for all heads as many. The loss of a batch is the mean
    cross-entropy by weight, on features that the head's chips standardise. Heads begin at zero.
    """
    shown = np.zeros((len(members), len(features)), np.float32)
    for head, chips in enumerate(members):
        shown[head, list(chips)] = 1
    order = np.stack(
        [
            np.asarray(chips)[np.stack([sampling.batch(step) for step in range(steps)])]
            for chips, sampling in (
                (chips, Sampling(len(chips), batch_size, seed))
                for chips, seed in zip(members, seeds, strict=True)
            )
        ]
    )
    return _train_heads(
        *(jnp.asarray(array) for array in (features, label, weight)),
        shown=shown,
        order=order,
        rate=jnp.asarray(learning_rate, jnp.float32),
        decay=weight_decay,
        num_classes=num_classes,
    )


@partial(jax.jit, static_argnames="num_classes")
def _train_heads(features, label, weight, *, shown, order, rate, decay, num_classes):
    own = _moments_of_chips(features, weight, shown)
    truth = jax.nn.one_hot(label, num_classes) * (weight > 0)[..., None]
    never = jnp.where(jnp.einsum("hc,cpk->hk", shown, truth) > 0, 0, -jnp.inf)

    def train(own: Moments, never, order, rate):
        optimizer = optax.adamw(rate, weight_decay=decay)

        def loss(params, chips):
            kernel, bias = params
            x = (features[chips].astype(jnp.float32) - own.mean) / own.scale
            each = optax.safe_softmax_cross_entropy(x @ kernel.T + bias + never, truth[chips])
            return (each * weight[chips]).sum() / jnp.maximum(weight[chips].sum(), 1e-9)

        def step(carry, chips):
            params, moving = carry
            updates, moving = optimizer.update(jax.grad(loss)(params, chips), moving, params)
            return (optax.apply_updates(params, updates), moving), None

        # The kernel lies transposed, as its gradient is computed: a third less time on a CPU.
        params = jnp.zeros((num_classes, features.shape[-1])), jnp.zeros(num_classes)
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), order)
        return params

    kernel, bias = jax.vmap(train)(own, never, order, rate)
    return own.fold(kernel.mT, bias + never)


def _moments_of_chips(features, weight, shown) -> Moments:
    """The moments of the pixels that each head is shown, from those of each chip."""

    def of_chip(chip):
        x, weight = chip[0].astype(jnp.float32), chip[1]
        total = weight.sum()
        mean = weight @ x / jnp.maximum(total, 1e-9)
        return total, mean, weight @ jnp.square(x - mean)

    total, mean, squares = jax.lax.map(of_chip, (features, weight))
    middle = total @ mean / total.sum()
    squares = squares + total[:, None] * jnp.square(mean - middle)
    pixels = (shown @ total)[:, None]
    ahead = shown @ (total[:, None] * (mean - middle)) / pixels
    return _moments(middle + ahead, shown @ squares / pixels - jnp.square(ahead))


def _moments(mean, variance) -> Moments:
    varies = variance > 1e-6 * jnp.square(mean) + 1e-12
    return Moments(mean, jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 1))
