"""AdamW by parameter groups, and the rule that lowers its rate when validation stalls."""

import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from jaxcrop.config import OptimizerConfig

_SMALL = 2**14
"""Parameters of fewer elements are updated as one."""

_TOGETHER = "small"
"""The name that this one has in the optimiser's state."""


def adamw(
    config: OptimizerConfig, rates: Mapping[str, float], *, pack: bool = True
) -> optax.GradientTransformation:
    """PyTorch's AdamW: decay on every trained parameter, biases and BatchNorm included.

    `rates` says by what share of the learning rate each parameter learns, which holds for its
    decay too, as in PyTorch's parameter groups. A gradient whose norm over all parameters exceeds
    `clip_norm` is scaled down to it first. If `pack`, the moments of small parameters are one
    vector: not for parameters that are spread over devices, which would fetch each part of it.
    """

    def scaled(updates, state, params=None):
        del params
        return {name: update * rates[name] for name, update in updates.items()}, state

    adam = optax.adamw(
        config.learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=config.weight_decay
    )
    if config.clip_norm is not None:
        adam = optax.chain(optax.clip_by_global_norm(config.clip_norm), adam)
    parts = [_packed(adam) if pack else adam]
    if set(rates.values()) != {1.0}:
        parts.append(optax.GradientTransformation(lambda params: optax.EmptyState(), scaled))
    return optax.chain(*parts)


def _packed(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` with all small parameters as one.

    Two thirds of a ResNet's arrays are biases and scales: one by one, they are most of what an
    update has to compile and a checkpoint to write. (`optax.flatten` would copy the large ones too,
    which takes longer than to update them.)
    """

    def pack(tree: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        packed = {name: array for name, array in tree.items() if array.size >= _SMALL}
        if small := [tree[name].ravel() for name in sorted(tree) if name not in packed]:
            packed[_TOGETHER] = jnp.concatenate(small)
        return packed

    def unpack(packed: Mapping[str, jax.Array], like: Mapping[str, jax.Array]):
        small = sorted(set(like) - set(packed))
        ends = itertools.accumulate(like[name].size for name in small)
        pieces = jnp.split(packed[_TOGETHER], [*ends][:-1]) if small else []
        whole = dict(packed) | dict(zip(small, pieces, strict=True))
        return {name: whole[name].reshape(like[name].shape) for name in like}

    def update(updates, state, params):
        packed, state = inner.update(pack(updates), state, pack(params))
        return unpack(packed, updates), state

    return optax.GradientTransformation(lambda params: inner.init(pack(params)), update)


def reduce_on_plateau(patience: int) -> optax.GradientTransformationExtraArgs:
    """PyTorch's `ReduceLROnPlateau(factor=0.1, threshold=1e-4)`, updated once per validation.

    `patience` counts as PyTorch counts: the rate falls after one more validation without
    improvement (optax falls at it).
    """
    return optax.contrib.reduce_on_plateau(factor=0.1, patience=patience + 1, rtol=1e-4)


def moving_average(
    average: Mapping[str, jax.Array], params: Mapping[str, jax.Array], decay: float, step: jax.Array
) -> dict[str, jax.Array]:
    """The moving average of the weights after an update.

    Early on the decay is (1 + step) / (10 + step), so that the random beginning is soon forgotten.
    """
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return {name: value + (1 - decay) * (params[name] - value) for name, value in average.items()}
