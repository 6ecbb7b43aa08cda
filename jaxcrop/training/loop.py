"""The training loop: one for every device, resumable at any checkpoint."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxcrop.config import TrainConfig
from jaxcrop.data.reading import Records, training_batches
from jaxcrop.errors import InputError
from jaxcrop.models.segmenter import Segmenter
from jaxcrop.training.checkpoints import Checkpoints
from jaxcrop.training.evaluation import Evaluation, evaluate_chips
from jaxcrop.training.logging import RunLog, message
from jaxcrop.training.mesh import data_mesh, fitting_batch_size, put_batch, replicated
from jaxcrop.training.optimizer import adamw, reduce_on_plateau
from jaxcrop.training.runs import Run
from jaxcrop.training.step import TrainState, make_eval_step, make_train_step, split_model


def train(run: Run, config: TrainConfig, model: Segmenter, records: Records) -> None:
    """Train `model` on the records' training chips, in `run`'s folder, up to step `config.steps`.

    Every `eval_every` steps: validate, lower the learning rate on a plateau, save a checkpoint; in
    this order, so that a run that resumes from the checkpoint goes on as if never interrupted.
    Raises InputError where the loss is not finite; the checkpoints before it remain.
    """
    mesh = data_mesh()
    chips = records.chips("train", run.band_input)
    validation = records.chips("validation", run.band_input)
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

    train_step = make_train_step(definition, optimizer, run.band_input, mesh)
    eval_step = make_eval_step(definition, run.band_input, mesh)
    key = jax.random.key(config.seed)
    batches = training_batches(
        chips,
        batch_size,
        config.seed,
        start=start,
        process=jax.process_index(),
        processes=jax.process_count(),
    )
    log = RunLog(run.folder, start, config.steps)
    if start:
        message(f"going on with {run.folder} from step {start}")
    behind = None  # the step whose loss is read while the device runs the next one
    for step in range(start + 1, config.steps + 1):
        state, loss = train_step(state, put_batch(next(batches), mesh), key)
        if behind is not None:
            _report(log, *behind, batch_size)
        behind = step, loss
        if step % every == 0 or step == config.steps:
            _report(log, *behind, batch_size)
            behind = None
            states = state.trained, state.rest
            evaluation = evaluate_chips(eval_step, states, validation, batch_size, mesh)
            _, lowered = plateau.update(jnp.zeros(()), state.plateau, value=evaluation.loss)
            _report_validation(log, step, evaluation, config.learning_rate * float(lowered.scale))
            state = dataclasses.replace(state, plateau=jax.device_put(lowered, replicated(mesh)))
            checkpoints.save(state, evaluation.loss)
    log.close()


def _report(log: RunLog, step: int, loss: jax.Array, images: int) -> None:
    value = _finite(float(loss), "loss", step)
    rate = log.progress(step, value, images)
    log.scalars(step, {"train/loss": value, "train/images_per_second": rate})


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
