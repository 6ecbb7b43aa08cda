"""Evaluate chips: one confusion matrix each, from which every metric follows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Int64

from jaxcrop.data.reading import Batch, Chip, evaluation_batches
from jaxcrop.training.mesh import local_part, put_batch
from jaxcrop.training.metrics import metrics
from jaxcrop.training.step import EvalResult


@dataclass(frozen=True)
class Evaluation:
    """Result over a set of chips: mean loss per labelled pixel, and a confusion matrix per chip."""

    loss: float
    chip_ids: tuple[str, ...]
    per_chip: Int64[np.ndarray, "chips classes classes"]

    @property
    def confusion(self) -> Int64[np.ndarray, "classes classes"]:
        """The confusion matrix over all chips, rows truth, columns prediction."""
        return self.per_chip.sum(0)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics over all chips."""
        return metrics(self.confusion)


def evaluate_chips(
    eval_step: Callable[[tuple[nnx.State, ...], Batch], EvalResult],
    states: tuple[nnx.State, ...],
    chips: Sequence[Chip],
    batch_size: int,
    mesh: Mesh,
) -> Evaluation:
    """Evaluate the model of `states` on every chip once; padding chips count nowhere."""
    loss_sum, pixels, chip_ids, per_chip = 0.0, 0.0, [], []
    for ids, batch in evaluation_batches(chips, batch_size):
        result = eval_step(states, put_batch(local_part(batch), mesh))
        loss_sum += float(result.loss_sum)
        pixels += float(result.pixels)
        chip_ids += ids
        per_chip.append(np.asarray(result.confusion, np.int64)[: len(ids)])
    return Evaluation(loss_sum / max(pixels, 1.0), tuple(chip_ids), np.concatenate(per_chip))
