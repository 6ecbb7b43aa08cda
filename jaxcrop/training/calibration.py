"""Calibration: whether pixels that are predicted with confidence 0.8 are right in 80 % of cases."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from jaxcrop.crops import IGNORE

if TYPE_CHECKING:
    from jax import Array

PIXELS, CONFIDENCE, CORRECT = range(3)
"""Columns of the bins."""


def calibration_bins(
    logits: "Float[Array, 'n h w classes']", label: "UInt8[Array, 'n h w']", bins: int = 15
) -> "Float[Array, 'bins 3']":
    """Labelled pixels, their summed confidence and the correct ones, per bin of confidence.

    Confidence is the largest probability of a pixel. The bins have equal widths over 0 to 1, hold
    their lower edge, and the last one also holds 1 (Guo et al. 2017, arXiv 1706.04599). Traceable
    by jit; logits may hold the type's lowest number for classes that are not allowed. Counts are
    exact in float32 up to 2²⁴ pixels: add batches up in float64 on the host.
    """
    import jax.numpy as jnp  # noqa: PLC0415 -- what reads the bins is to work without JAX

    logits = logits.astype(jnp.float32)
    top = logits.max(axis=-1)
    confidence = 1 / jnp.exp(logits - top[..., None]).sum(axis=-1)
    labelled = label != IGNORE
    correct = labelled & (logits.argmax(axis=-1) == label)
    edges = jnp.linspace(0, 1, bins + 1).at[-1].set(jnp.inf)
    held = (confidence[..., None] >= edges[:-1]) & (confidence[..., None] < edges[1:])
    # Image by image, then over images: two short sums round less than a long one.
    sums = [
        jnp.sum(held * value[..., None], axis=(1, 2), dtype=jnp.float32).sum(axis=0)
        for value in (labelled, jnp.where(labelled, confidence, 0), correct)
    ]
    return jnp.stack(sums, axis=-1)


def calibration_errors(bins: Float[np.ndarray, "bins 3"]) -> dict[str, float]:
    """The `expected` and the `maximum` calibration error; NaN without pixels.

    They are the mean over pixels, and the largest over bins that hold any, of |accuracy -
    confidence| of the bin (Guo et al. 2017, equations 3 and 5). torchmetrics'
    MulticlassCalibrationError puts confidences of exactly 1 in a bin of their own.
    """
    bins = np.asarray(bins, np.float64)
    bins = bins[bins[:, PIXELS] > 0]
    if not len(bins):
        return {"expected": float("nan"), "maximum": float("nan")}
    gaps = np.abs(bins[:, CORRECT] - bins[:, CONFIDENCE])
    return {
        "expected": float(gaps.sum() / bins[:, PIXELS].sum()),
        "maximum": float((gaps / bins[:, PIXELS]).max()),
    }
