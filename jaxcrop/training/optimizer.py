"""AdamW by parameter groups, and the rule that lowers its rate when validation stalls."""

from collections.abc import Mapping

import jax
import optax

from jaxcrop.config import OptimizerConfig


def adamw(config: OptimizerConfig, rates: Mapping[str, float]) -> optax.GradientTransformation:
    """PyTorch's AdamW: decay on every trained parameter, biases and BatchNorm included.

    `rates` says by what share of the learning rate each parameter learns, which holds for its
    decay too, as in PyTorch's parameter groups. A gradient whose norm over all parameters exceeds
    `clip_norm` is scaled down to it first.
    """

    def scaled(updates, state, params=None):
        del params
        return {name: update * rates[name] for name, update in updates.items()}, state

    parts = [
        optax.adamw(
            config.learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=config.weight_decay
        )
    ]
    if config.clip_norm is not None:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if set(rates.values()) != {1.0}:
        parts.append(optax.GradientTransformation(lambda params: optax.EmptyState(), scaled))
    return optax.chain(*parts)


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
    decay = jax.numpy.minimum(decay, (1 + step) / (10 + step))
    return {name: value + (1 - decay) * (params[name] - value) for name, value in average.items()}
