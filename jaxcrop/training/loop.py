"""The training loop: one for every device, resumable at any checkpoint."""

import dataclasses
import math
from contextlib import closing
from itertools import islice

import jax
import jax.numpy as jnp

from jaxcrop.config import TrainConfig
from jaxcrop.data.reading import evaluation_batches, training_batches
from jaxcrop.errors import InputError
from jaxcrop.models.segmenter import Segmenter
from jaxcrop.training.checkpoints import Checkpoints
from jaxcrop.training.evaluation import Evaluation, evaluate_chips
from jaxcrop.training.logging import RunLog, message
from jaxcrop.training.mesh import (
    data_mesh,
    fitting_batch_size,
    local_part,
    put_batch,
    replicated,
)
from jaxcrop.training.optimizer import adamw, reduce_on_plateau
from jaxcrop.training.runs import Run
from jaxcrop.training.step import (
    TrainState,
    make_eval_step,
    make_statistics_step,
    make_train_step,
    split_model,
)


def train(run: Run, config: TrainConfig, model: Segmenter) -> None:
    """Train `model` on the chips of `run`'s experiment, in its folder, up to step `config.steps`.

    Every `eval_every` steps: average the BatchNorm statistics, validate, lower the learning rate on
    a plateau, save a checkpoint; in this order, so that a run that resumes from the checkpoint goes
    on as if never interrupted.
    Raises InputError where the loss is not finite; the checkpoints before it remain.
    """
    mesh = data_mesh()
    experiment = run.experiment()
    chips = experiment.chips("train", run.band_input)
    validation = experiment.chips("validation", run.band_input)
    batch_size = fitting_batch_size(config.batch_size, len(chips), mesh)
    every = config.eval_every or max(1, len(chips) // batch_size)

    definition, trained, rest = split_model(model, freeze=config.freeze)
    optimizer = adamw(config.learning_rate, config.weight_decay)
    plateau = reduce_on_plateau(config.plateau_patience)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        trained=trained,
        rest=rest,
        optimizer=optimizer.init(trained),
        plateau=plateau.init(jnp.zeros(())),
    )
    state = jax.device_put(state, replicated(mesh))
    checkpoints = Checkpoints(run.folder)
    if checkpoints.latest_step is not None:
        state = checkpoints.restore(state)
    start = int(state.step)

    dtype = config.compute_dtype
    train_step = make_train_step(definition, optimizer, run.band_input, dtype, mesh)
    statistics_step = make_statistics_step(definition, run.band_input, dtype, mesh)
    eval_step = make_eval_step(definition, run.band_input, dtype, run.classes, mesh)
    key = jax.random.key(config.seed)
    batches = training_batches(
        chips,
        batch_size,
        config.seed,
        start=start,
        process=jax.process_index(),
        processes=jax.process_count(),
    )
    if start:
        message(f"going on with {run.folder} from step {start}")
    with closing(RunLog(run.folder, start, config.steps)) as log:
        behind = None  # the step whose loss is read while the device runs the next one
        for step in range(start + 1, config.steps + 1):
            state, loss = train_step(state, put_batch(next(batches), mesh), key)
            if behind is not None:
                _report(log, *behind, batch_size)
            behind = step, loss
            if step % every == 0 or step == config.steps:
                _report(log, *behind, batch_size)
                behind = None
                rest = state.rest
                # Padding chips would spoil the statistics: whole batches only.
                whole = min(config.batchnorm_batches, len(chips) // batch_size)
                for k, (_, batch) in enumerate(
                    islice(evaluation_batches(chips, batch_size), whole)
                ):
                    on_devices = put_batch(local_part(batch), mesh)
                    rest = statistics_step(state.trained, rest, on_devices, jnp.asarray(k))
                states = state.trained, rest
                evaluation = evaluate_chips(eval_step, states, validation, batch_size, mesh)
                _, lowered = plateau.update(jnp.zeros(()), state.plateau, value=evaluation.loss)
                rate = config.learning_rate * float(lowered.scale)
                _report_validation(log, step, evaluation, rate)
                lowered = jax.device_put(lowered, replicated(mesh))
                state = dataclasses.replace(state, rest=rest, plateau=lowered)
                checkpoints.save(state, evaluation.loss)


def _report(log: RunLog, step: int, loss: jax.Array, images: int) -> None:
    log.progress(step, _finite(float(loss), "loss", step), images)


def _finite(loss: float, name: str, step: int) -> float:
    """Pass a loss on. Raises InputError where it is not finite."""
    if not math.isfinite(loss):
        raise InputError(
            f"the {name} became {loss} at step {step}: lower --learning-rate, or check the chips "
            "for broken pixels; the checkpoints before that step remain"
        )
    return loss


def _report_validation(log: RunLog, step: int, evaluation: Evaluation, rate: float) -> None:
    loss = _finite(evaluation.loss, "validation loss", step)
    values = {"loss": loss, **evaluation.metrics}
    log.scalars(step, {f"validation/{name}": value for name, value in values.items()})
    log.scalars(step, {"train/learning_rate": rate})
    message(
        f"step {step}: validation loss {loss:.4f}, "
        f"overall accuracy {values['overall_accuracy']:.1%}, "
        f"average over the classes present {values['present_accuracy']:.1%}"
    )
