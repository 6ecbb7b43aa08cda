"""Losses over labelled pixels, and class weights against their imbalance."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from jaxcrop.crops import IGNORE

if TYPE_CHECKING:
    from jaxcrop.config import LossConfig

_BETA = 0.99
_CHIP_PIXELS = 256 * 256
_EPSILON = 1e-7
"""What no denominator of a region term falls below, as in segmentation_models_pytorch."""


def cross_entropy_sum(
    logits: Float[Array, "n h w classes"], label: UInt8[Array, "n h w"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy summed over the labelled pixels, and their number.

    Their quotient is PyTorch's `CrossEntropyLoss(ignore_index=0)` over the whole batch.
    """
    labelled = label != IGNORE
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label.astype(jnp.int32))
    return jnp.sum(loss, where=labelled), labelled.sum(dtype=jnp.float32)


def class_weights(
    kind: Literal["none", "inverse", "effective"], pixels: Int[np.ndarray, " classes"]
) -> Float[np.ndarray, " classes"]:
    """A weight per class from the `pixels` that each has in the training labels.

    `none` is 1 for all. `inverse` is the inverse frequency, scikit-learn's "balanced". `effective`
    is the inverse of the effective number (1 - β^n) / (1 - β) of Cui et al. 2019 (arXiv 1901.05555,
    equation 2) with β = 0.99 and n in chips of 65,536 pixels, since neighbours are much alike:
    counted in pixels, the paper's β would make all classes alike that fill a seventh of one chip.

    Both are scaled so that the mean weight of a labelled training pixel is 1, which keeps the
    learning rate's meaning; the ignored class and those without pixels have weight 0.
    """
    if kind == "none":
        return np.ones(len(pixels), np.float32)
    occurs = (np.asarray(pixels) > 0) & (np.arange(len(pixels)) != IGNORE)
    weights = np.zeros(len(pixels))
    if not occurs.any():
        return weights.astype(np.float32)
    counts = np.asarray(pixels, np.float64)[occurs]
    number = counts
    if kind == "effective":
        number = (1 - _BETA ** (counts / _CHIP_PIXELS)) / (1 - _BETA)
    weights[occurs] = 1 / number
    return (weights * counts.sum() / (weights[occurs] @ counts)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Loss:
    """The loss of a batch, to be called inside jit; `make_loss` makes it.

    Several losses of `config` are added up, each times its factor. Pixel terms (cross-entropy,
    focal) are means over labelled pixels weighted by `class_weights`; region terms (dice, jaccard)
    are means over the classes that the labels hold, which no class weight touches.
    """

    config: "LossConfig"
    class_weights: Float[np.ndarray, " classes"]

    def weight(self, label: UInt8[Array, "n h w"]) -> Float[Array, ""]:
        """The sum of the class weights of the labelled pixels, by which pixel terms are divided."""
        counts = _truth(label, len(self.class_weights)).sum(axis=(0, 1, 2), dtype=jnp.int32)
        return jnp.sum(counts * jnp.asarray(self.class_weights, jnp.float32))

    def __call__(
        self,
        logits: Float[Array, "n h w classes"],
        label: UInt8[Array, "n h w"],
        total: Float[Array, ""] | None = None,
        parts: int = 1,
    ) -> Float[Array, ""]:
        """The loss of the pixels given; 0 where none is labelled.

        Micro-batches, each called with the `total` weight of the whole batch and their number
        `parts`, add up to the batch's pixel terms, in value and gradient, and to the mean over
        micro-batches of the region terms, which look at one micro-batch at a time.
        """
        total = self.weight(label) if total is None else total
        total = jnp.where(total > 0, total, 1)  # without labelled pixels the terms are 0 themselves
        log_p = jax.nn.log_softmax(logits)
        truth = _truth(label, len(self.class_weights))
        value = jnp.zeros((), log_p.dtype)
        for name, factor in zip(
            self.config.loss,
            self.config.loss_weights or (1.0,) * len(self.config.loss),
            strict=True,
        ):
            if name == "cross-entropy":
                term = self._cross_entropy(log_p, truth) / total
            elif name == "focal":
                term = self._focal(log_p, truth) / total
            else:
                term = _region(log_p, truth, jaccard=name == "jaccard") / parts
            value += factor * term
        return value

    def _cross_entropy(self, log_p: Float[Array, "*n c"], truth: Array) -> Float[Array, ""]:
        """Summed cross-entropy; smoothing gives each class an equal share, class 0 as well.

        So `torch.nn.CrossEntropyLoss` does it (Szegedy et al. 2016, arXiv 1512.00567, section 7).
        """
        smoothing = self.config.label_smoothing
        weights = jnp.asarray(self.class_weights, log_p.dtype)
        loss = (1 - smoothing) * jnp.sum(jnp.where(truth, weights * log_p, 0))
        if smoothing:
            everywhere = (weights * log_p).sum(axis=-1)
            spread = jnp.sum(everywhere, where=truth.any(axis=-1)) / len(self.class_weights)
            loss += smoothing * spread
        return -loss

    def _focal(self, log_p: Float[Array, "*n c"], truth: Array) -> Float[Array, ""]:
        """Summed focal loss -α (1 - p)^γ log p of the true class's probability under the softmax.

        Lin et al. 2017, arXiv 1708.02002, equation 5, with the class weights as α. smp's FocalLoss
        differs: it sums one sigmoid per class, the ignored one too, and γ = 0 is no cross-entropy.
        """
        weights = jnp.asarray(self.class_weights, log_p.dtype)
        # Above 0, where a power below 1 has no gradient.
        miss = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(log_p.dtype).tiny)
        loss = weights * miss**self.config.focal_gamma * log_p
        return -jnp.sum(jnp.where(truth, loss, 0))


def make_loss(config: "LossConfig", pixels: Int[np.ndarray, " classes"]) -> Loss:
    """The loss that `config` asks for, where the training labels hold `pixels` of each class."""
    return Loss(config, class_weights(config.class_weights, pixels))


def _truth(label: UInt8[Array, "*n"], classes: int) -> Array:
    """True at the class of each labelled pixel."""
    classes = jnp.arange(classes)
    return (label[..., None] == classes) & (classes != IGNORE)


def _region(log_p: Float[Array, "*n c"], truth: Array, *, jaccard: bool) -> Float[Array, ""]:
    """One minus the soft Dice score or Jaccard index, averaged over the classes in the labels.

    With p the probabilities and t the truth, summed over all labelled pixels of the batch: Dice is
    2 Σpt / (Σp + Σt) (Milletari et al. 2016, arXiv 1606.04797), Jaccard Σpt / (Σp + Σt - Σpt)
    (Rahman and Wang 2016). smp's losses with `classes` set to those that the labels hold; without
    it, smp divides by all classes, so that a class that is absent lowers the loss.
    """
    axes = tuple(range(log_p.ndim - 1))
    labelled = truth.any(axis=-1, keepdims=True)
    p = jnp.where(labelled, jnp.exp(log_p), 0)
    hits = jnp.sum(p, axis=axes, where=truth)
    pixels = truth.sum(axis=axes, dtype=log_p.dtype)
    both = p.sum(axis=axes) + pixels
    score = (
        hits / jnp.maximum(both - hits, _EPSILON)
        if jaccard
        else (2 * hits / jnp.maximum(both, _EPSILON))
    )
    present = pixels > 0
    return jnp.sum(1 - score, where=present) / jnp.maximum(present.sum(), 1)
