"""What happens between steps: BatchNorm statistics, validation, the plateau rule."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxcrop.compiling import compiled
from jaxcrop.data.reading import Chip
from jaxcrop.errors import InputError
from jaxcrop.mesh import evaluation_batch_size, put_everywhere
from jaxcrop.training.evaluation import Evaluation, evaluate_chips
from jaxcrop.training.feed import ImageFeed
from jaxcrop.training.kept_maps import MapFeed
from jaxcrop.training.logging import RunLog, sample_picture
from jaxcrop.training.network import Values
from jaxcrop.training.optimizer import reduce_on_plateau
from jaxcrop.training.runs import Run
from jaxcrop.training.step import Task, TrainState, make_eval_step, make_statistics_step

_PICTURES = 4
"""Validation chips that are shown with their prediction."""


class Validator:
    """What happens between steps: statistics, validation, plateau."""

    def __init__(
        self,
        run: Run,
        task: Task,
        feed: ImageFeed | MapFeed,
        validation: Sequence[Chip],
        *,
        batch_size: int,
    ):
        self._run, self._task, self._feed = run, task, feed
        self._validation = validation
        self._by_batch = run.config.scoring.validation_loss == "batches"
        self._size = (
            min(batch_size, len(validation))  # the loss depends on it
            if self._by_batch
            else evaluation_batch_size(batch_size, len(validation), task.mesh)
        )
        self._statistics = make_statistics_step(task)
        self._evaluate = make_eval_step(
            task.network, task.band_input, task.dtype, run.predicted, task.mesh
        )
        plateau = reduce_on_plateau(run.config.optimizer.plateau_patience)
        self._plateau_update = compiled(plateau.update)

    def __call__(self, state: TrainState, log: RunLog) -> tuple[TrainState, float]:
        """The state to go on with, and the validation loss."""
        values = state.model
        statistics = self._averaged(values, state.statistics)
        evaluation = evaluate_chips(
            self._evaluate,
            values | statistics,
            self._feed.validation(self._size),
            pictures=_PICTURES,
        )
        loss = evaluation.batch_loss if self._by_batch else evaluation.loss
        _, lowered = self._plateau_update(jnp.zeros(()), state.plateau, value=loss)
        rate = self._run.config.optimizer.learning_rate * float(lowered.scale)
        _report(log, int(state.step), evaluation, loss, rate)
        for position, prediction in enumerate(evaluation.predictions):
            chip = self._validation[position]
            bands = self._run.band_input.bands
            picture = sample_picture(chip.image, bands, chip.label, prediction)
            log.pictures(int(state.step), f"validation/{position}", picture)
        plateau = put_everywhere(lowered, self._task.mesh)
        return dataclasses.replace(state, statistics=statistics, plateau=plateau), loss

    def _averaged(self, values: Values, statistics: Values) -> Values:
        """The statistics over the batches that set them, at these values."""
        for k, batch in enumerate(self._feed.statistics()):
            after = self._statistics(values | statistics, batch, jnp.asarray(k))
            jax.block_until_ready(statistics)  # the batch before may lie where the next one will
            statistics = after
        # What is validated second may lie where the last of these batches does.
        return jax.block_until_ready(statistics)


def finite(loss: float, name: str, step: int) -> float:
    """Pass a loss on. Raises InputError where it is not finite."""
    if not math.isfinite(loss):
        raise InputError(
            f"the {name} became {loss} at step {step}: lower --learning-rate, or check the chips "
            "for broken pixels; the checkpoints before that step remain"
        )
    return loss


def _report(log: RunLog, step: int, evaluation: Evaluation, loss: float, rate: float) -> None:
    values = {"loss": finite(loss, "validation loss", step), **evaluation.metrics}
    log.scalars(step, {f"validation/{name}": value for name, value in values.items()})
    log.scalars(step, {"train/learning_rate": rate})
    log.message(
        f"step {step}: validation loss {loss:.4f}, "
        f"overall accuracy {values['overall_accuracy']:.1%}, "
        f"average over the classes present {values['present_accuracy']:.1%}"
    )
