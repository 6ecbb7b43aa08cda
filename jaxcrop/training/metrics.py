"""The metrics of the paper, every one a function of the confusion matrix.

A confusion matrix counts pixels: rows are the truth, columns the prediction. Pixels whose truth is
class 0 (ignore) are never counted, so row 0 is zero; column 0 counts valid pixels predicted as 0.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

if TYPE_CHECKING:
    from jax import Array


_PER_CLASS = ("f1", "precision", "recall", "jaccard")


def confusion_matrix(
    label: "Integer[Array, 'b h w']", prediction: "Integer[Array, 'b h w']", num_classes: int
) -> "Int[Array, 'b k k']":
    """One confusion matrix per chip, int32; traceable by jit.

    Labels and predictions outside 0..`num_classes`-1 are not counted, like truth 0. Add the
    matrices of many chips up in int64 on the host: int32 overflows after 2³¹ pixels.
    """
    import jax.numpy as jnp  # noqa: PLC0415 -- `metrics` is to work without JAX

    flat = (len(label), -1, 1)
    classes = jnp.arange(num_classes)
    truth = (label.reshape(flat) == classes) & (classes != 0)
    guess = prediction.reshape(flat) == classes
    # A product of one-hot matrices: exact, and fast where a scatter (bincount) would be slow.
    return jnp.einsum(
        "bnt,bnp->btp",
        truth.astype(jnp.int8),
        guess.astype(jnp.int8),
        preferred_element_type=jnp.int32,
    )


def metrics(confusion: Integer[np.ndarray, "*n k k"]) -> dict[str, Float[np.ndarray, "*n"] | float]:
    """Accuracy, F1, precision, recall and Jaccard index as `overall_`, `average_` and `present_*`.

    `overall_` (micro) counts all pixels alike; `average_` (macro) averages over the classes that
    occur in the labels or the predictions. Both equal torchmetrics 1.9 with `ignore_index=0`, which
    is what the paper used (datasets_spec 8.6): a class that is absent from the labels but predicted
    once enters the average as 0, class 0 too, save in the Jaccard index. `present_` averages over
    the classes that occur in the labels, so that stray predictions do not change its denominator.
    The Jaccard index is also called intersection over union (IoU). `kappa` is Cohen's: how much of
    the agreement that chance leaves open is reached. Where there is nothing to average (no valid
    pixel), the value is NaN. One matrix gives numbers, a stack of them arrays.
    """
    of_class = per_class(confusion)
    hits = np.diagonal(np.asarray(confusion, np.int64), axis1=-2, axis2=-1)
    truth, guess = of_class["truth"], of_class["guess"]
    scores = {"accuracy": of_class["recall"], **{name: of_class[name] for name in _PER_CLASS}}
    real = np.arange(hits.shape[-1]) != 0
    total, right = truth.sum(axis=-1), hits.sum(axis=-1)
    values = {}
    for name, score in scores.items():
        # Over all classes there are as many misses as false alarms: four of the five coincide.
        pixels = (truth + guess - hits)[..., real].sum(axis=-1) if name == "jaccard" else total
        values[f"overall_{name}"] = _ratio(right, pixels, np.nan)
        values[f"average_{name}"] = _mean(score, counted_classes(confusion, name))
        values[f"present_{name}"] = _mean(score, truth > 0)
    # products of counts overflow
    chance = (_ratio(truth, total[..., None]) * _ratio(guess, total[..., None])).sum(axis=-1)
    agreement = _ratio(right, total, np.nan)
    values["kappa"] = (agreement - chance) / np.where(chance == 1, np.nan, 1 - chance)
    return {name: value if value.ndim else float(value) for name, value in values.items()}


def counted_classes(
    confusion: Integer[np.ndarray, "*n k k"], score: str
) -> Bool[np.ndarray, "*n k"]:
    """The classes that `average_{score}` is over: labelled or predicted; of Jaccard's, not 0."""
    confusion = np.asarray(confusion)
    occurs = (confusion.sum(axis=-1) > 0) | (confusion.sum(axis=-2) > 0)
    return occurs & (np.arange(occurs.shape[-1]) != 0) if score == "jaccard" else occurs


def per_class(confusion: Integer[np.ndarray, "*n k k"]) -> dict[str, np.ndarray]:
    """Recall, precision, F1 and Jaccard index (IoU) of each class, and its pixels.

    `truth` and `guess` count the pixels labelled and predicted as the class. A score without
    pixels to count is 0.
    """
    confusion = np.asarray(confusion, np.int64)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    truth, guess = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return {
        "truth": truth,
        "guess": guess,
        "recall": _ratio(hits, truth),
        "precision": _ratio(hits, guess),
        "f1": _ratio(2 * hits, truth + guess),
        "jaccard": _ratio(hits, truth + guess - hits),
    }


def _ratio(part: np.ndarray, whole: np.ndarray, empty: float = 0.0) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), empty)


def _mean(score: np.ndarray, among: np.ndarray) -> np.ndarray:
    return _ratio(np.where(among, score, 0).sum(axis=-1), among.sum(axis=-1), np.nan)
