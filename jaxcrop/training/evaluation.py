"""Evaluate chips: one confusion matrix each, from which every metric follows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jax import Array
from jaxtyping import Float64, Int64, UInt8

from jaxcrop.data.reading import Batch
from jaxcrop.mesh import one_behind
from jaxcrop.training.metrics import metrics
from jaxcrop.training.network import Values
from jaxcrop.training.step import EvalResult


@dataclass(frozen=True)
class Evaluation:
    """Result over a set of chips: mean losses, a confusion matrix per chip, calibration.

    `loss` is the mean over labelled pixels, `batch_loss` that over batches weighted by their chips
    (datasets_spec 8.4). `predictions` are those of the first chips, where they were asked for.
    """

    loss: float
    batch_loss: float
    chip_ids: tuple[str, ...]
    per_chip: Int64[np.ndarray, "chips classes classes"]
    calibration: Float64[np.ndarray, "bins 3"]
    predictions: list[UInt8[np.ndarray, "h w"]] = field(default_factory=list)

    @property
    def confusion(self) -> Int64[np.ndarray, "classes classes"]:
        """The confusion matrix over all chips, rows truth, columns prediction."""
        return self.per_chip.sum(0)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics over all chips."""
        return metrics(self.confusion)


def evaluate_chips(
    eval_step: Callable[[Values, Batch], tuple[EvalResult, UInt8]],
    values: Values,
    batches: Iterable[tuple[Sequence[str], Batch]],
    *,
    pictures: int = 0,
) -> Evaluation:
    """Evaluate the model of these values on `batches` of chips, each with the chips' ids.

    Chips beyond the ids fill up a batch and count nowhere. Keeps the predictions of the first
    `pictures` chips, as far as this process computes them. A batch is done with before the next but
    one is asked for.
    """
    results = ((ids, *eval_step(values, batch)) for ids, batch in batches)
    return collected(one_behind(results), pictures)


def collected(
    results: Iterable[tuple[Sequence[str], EvalResult, UInt8[Array, "n h w"]]], pictures: int = 0
) -> Evaluation:
    """What the results of batches add up to, each with the ids of its chips and the predictions.

    Chips beyond the ids fill up a batch. The predictions of the first `pictures` chips are kept.
    """
    losses, chip_ids, per_chip, predictions, calibration = [], [], [], [], 0
    for ids, result, predicted in results:
        losses.append((float(result.loss_sum), float(result.pixels), len(ids)))
        chip_ids += ids
        per_chip.append(np.asarray(result.confusion, np.int64)[: len(ids)])
        calibration = calibration + np.asarray(result.calibration, np.float64)
        if len(predictions) < pictures:
            parts = [part for part in predicted.addressable_shards if part.replica_id == 0]
            predictions += [chip for part in parts for chip in np.asarray(part.data)][: len(ids)]
    total, pixels, weights = np.array(losses).T
    return Evaluation(
        loss=float(total.sum() / max(pixels.sum(), 1.0)),
        batch_loss=float(np.average(total / np.maximum(pixels, 1.0), weights=weights)),
        chip_ids=tuple(chip_ids),
        per_chip=np.concatenate(per_chip),
        calibration=calibration,
        predictions=predictions[:pictures],
    )
