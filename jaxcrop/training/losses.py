"""Losses over labelled pixels."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt8

from jaxcrop.crops import IGNORE


def cross_entropy_sum(
    logits: Float[Array, "n h w classes"], label: UInt8[Array, "n h w"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy summed over the labelled pixels, and their number.

    Their quotient is PyTorch's `CrossEntropyLoss(ignore_index=0)` over the whole batch.
    """
    labelled = label != IGNORE
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label.astype(jnp.int32))
    return jnp.sum(loss, where=labelled), labelled.sum(dtype=jnp.float32)


def cross_entropy(
    logits: Float[Array, "n h w classes"], label: UInt8[Array, "n h w"]
) -> Float[Array, ""]:
    """Mean cross-entropy over the labelled pixels of the batch; 0 where there are none."""
    total, count = cross_entropy_sum(logits, label)
    return total / jnp.maximum(count, 1)
