"""AdamW, and the rule that lowers its learning rate when validation stops improving."""

import optax


def adamw(learning_rate: float, weight_decay: float) -> optax.GradientTransformation:
    """PyTorch's AdamW: decay on every trained parameter, biases and BatchNorm included."""
    return optax.adamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=weight_decay)


def reduce_on_plateau(patience: int) -> optax.GradientTransformationExtraArgs:
    """PyTorch's `ReduceLROnPlateau(factor=0.1, threshold=1e-4)`, updated once per validation.

    `patience` counts as PyTorch counts: the rate falls after one more validation without
    improvement (optax falls at it).
    """
    return optax.contrib.reduce_on_plateau(factor=0.1, patience=patience + 1, rtol=1e-4)
