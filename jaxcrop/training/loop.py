"""The training loop: one for every device, resumable at any checkpoint."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from jaxcrop.config import OptimizerConfig
from jaxcrop.data.experiment import Experiment
from jaxcrop.data.reading import Chip, training_batches
from jaxcrop.data.sampling import Sampling
from jaxcrop.errors import InputError
from jaxcrop.figures import save_figure
from jaxcrop.models.segmenter import Segmenter
from jaxcrop.training.checkpoints import Checkpoints
from jaxcrop.training.curves import learning_curves
from jaxcrop.training.evaluation import Evaluation, evaluate_chips
from jaxcrop.training.feed import Advance, cached, streamed, wants_cache
from jaxcrop.training.groups import describe, parameter_groups
from jaxcrop.training.logging import RunLog, message, sample_picture
from jaxcrop.training.lora import adapters
from jaxcrop.training.losses import make_loss
from jaxcrop.training.mesh import (
    data_mesh,
    fitting_batch_size,
    is_first_process,
    local_rows,
    placement,
    put_batch,
    put_everywhere,
)
from jaxcrop.training.network import Values, values_of
from jaxcrop.training.optimizer import adamw, reduce_on_plateau
from jaxcrop.training.preemption import Preempted, Preemption
from jaxcrop.training.profiling import Profile
from jaxcrop.training.runs import Run
from jaxcrop.training.step import (
    Task,
    TrainState,
    make_cached_steps,
    make_eval_step,
    make_statistics_step,
    make_train_step,
    make_update,
    training_network,
)

_PICTURES = 4
"""Validation chips that are shown with their prediction."""

_PROFILED = (3, 6)
"""The first and last step, after the beginning or resuming, that --profile traces."""


def train(run: Run, model: Segmenter) -> None:
    """Train `model` on the chips of `run`'s experiment, in its folder.

    Every `eval_every` steps: average the BatchNorm statistics, validate, lower the learning rate on
    a plateau, save a checkpoint; in this order, so that a run that resumes from the checkpoint goes
    on as if never interrupted. The last checkpoint is that of the last step.
    Raises InputError where the loss is not finite, and Preempted after a SIGTERM; the checkpoints
    before it remain.
    """
    config = run.config.optimizer
    mesh = data_mesh()
    experiment = run.experiment()
    chips = experiment.chips("train", run.band_input)
    sampling = _sampling(config, len(chips), mesh)
    last = config.steps if config.epochs is None else sampling.steps(config.epochs)

    task, optimizer, state = _begin(run, model, experiment, mesh)
    checkpoints = Checkpoints(run.folder)
    if checkpoints.latest_step is not None:
        state, faults = checkpoints.restore(state)
        for fault in faults:
            message(f"{fault}: going on from the checkpoint before")
    start = int(state.step)
    if start:
        message(f"going on with {run.folder} from step {start}")
    if start >= last:
        return

    validation = experiment.chips("validation", run.band_input)
    validator = _Validator(run, task, chips, validation, batch_size=sampling.batch_size)
    with (
        closing(_log(run, start, last)) as log,
        closing(_profile(run, start)) as profile,
        Preemption() as preemption,
    ):
        advance = _feed(
            run,
            task,
            optimizer,
            state,
            chips=chips,
            sampling=sampling,
            steps=range(start, last),
        )
        while (done := int(state.step)) < last:
            until = min(last, sampling.validation_after(done, config.eval_every))
            state = _run_steps(
                advance(state, range(done, until)),
                done,
                log=log,
                images=sampling.batch_size,
                profile=profile,
                preemption=preemption,
            )
            if (done := int(state.step)) == until:
                state, loss = validator(state, log)
                checkpoints.save(state, loss)
            else:
                checkpoints.save(state)
            if preemption.stopping and done < last:
                log.message(f"SIGTERM: checkpoint of step {done} written; the same command goes on")
                raise Preempted
    if is_first_process():
        figure = learning_curves(run.folder, synthetic=run.synthetic)
        save_figure(figure, run.folder / "curves.png")


def _sampling(config: OptimizerConfig, chips: int, mesh: Mesh) -> Sampling:
    """What composes the batches: of the size asked for, or less where there are fewer chips."""
    size = min(config.batch_size, chips)
    if config.sampling == "shuffled":
        size = fitting_batch_size(config.batch_size, chips, mesh)
    return Sampling(chips, size, config.seed, config.sampling)


def _begin(
    run: Run, model: Segmenter, experiment: Experiment, mesh: Mesh
) -> tuple[Task, optax.GradientTransformation, TrainState]:
    """What is trained, by what, and the state it begins in, on the devices."""
    config = run.config
    network = training_network(model, config.tuning)
    values = values_of(model)
    parameters = network.names(nnx.Param)
    groups = parameter_groups(parameters, config.tuning)
    rates = {name: group.rate for group in groups for name in group.parameters}
    params = {name: values[name] for name in parameters if rates[name]}
    frozen = {name: values[name] for name in parameters if not rates[name]}
    statistics = {name: values[name] for name in network.names(nnx.BatchStat)}
    sizes = {name: values[name].size for name in parameters}
    lines = describe(groups, sizes)
    if config.tuning.tune == "lora":
        key = jax.random.fold_in(jax.random.key(config.optimizer.seed), 1)
        added = adapters(key, frozen, config.tuning.lora_rank)
        rates |= dict.fromkeys(added, 1.0)
        params |= added
        count = sum(value.size for value in added.values())
        lines += f"\n  and adapters of rank {config.tuning.lora_rank}, {count:,} parameters"
    if is_first_process():
        print(lines, flush=True)

    optimizer = adamw(config.optimizer, {name: rates[name] for name in params})
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        frozen=frozen,
        statistics=statistics,
        # A copy: the step reuses the memory of what it is given, each array once.
        average=jax.tree.map(jnp.copy, params) if config.optimizer.ema is not None else {},
        optimizer=optimizer.init(params),
        plateau=reduce_on_plateau(config.optimizer.plateau_patience).init(jnp.zeros(())),
    )
    state = jax.device_put(state, placement(state, mesh, spread=config.device.shard_parameters))
    loss = make_loss(config.loss, experiment.pixels)
    return Task(network, run.band_input, config.device.compute_dtype, loss, mesh), optimizer, state


def _feed(
    run: Run,
    task: Task,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    *,
    chips: Sequence[Chip],
    sampling: Sampling,
    steps: range,
) -> Advance:
    config = run.config
    placed = jax.tree.map(lambda array: array.sharding, state)
    accumulate, ema = config.optimizer.accumulate, config.optimizer.ema
    update = make_update(task, optimizer, accumulate=accumulate, ema=ema)
    key = jax.random.key(config.optimizer.seed)
    if wants_cache(chips, config.device):
        program = make_cached_steps(update, placed, task.mesh)
        return cached(program, chips, sampling, key, mesh=task.mesh)
    program = make_train_step(update, placed, task.mesh)
    workers = config.device.workers
    return streamed(program, chips, sampling, steps, key, mesh=task.mesh, workers=workers)


class _Validator:
    """What happens between steps: statistics, validation, plateau."""

    def __init__(
        self,
        run: Run,
        task: Task,
        chips: Sequence[Chip],
        validation: Sequence[Chip],
        *,
        batch_size: int,
    ):
        self._run, self._task = run, task
        self._chips, self._validation = chips, validation
        size = fitting_batch_size(batch_size, len(chips), task.mesh)
        # Of its own order, and of whole batches: statistics are means over the training chips.
        self._order = Sampling(len(chips), size, run.config.optimizer.seed)
        self._size = fitting_batch_size(size, len(validation), task.mesh)
        self._statistics = make_statistics_step(task)
        self._evaluate = make_eval_step(
            task.network, run.band_input, task.dtype, run.predicted, task.mesh
        )
        self._plateau = reduce_on_plateau(run.config.optimizer.plateau_patience)

    def __call__(self, state: TrainState, log: RunLog) -> tuple[TrainState, float]:
        """The state to go on with, and the validation loss."""
        values = state.model
        statistics = self._averaged(values, state.statistics)
        evaluation = evaluate_chips(
            self._evaluate,
            values | statistics,
            self._validation,
            self._size,
            self._task.mesh,
            pictures=_PICTURES,
        )
        by_batch = self._run.config.scoring.validation_loss == "batches"
        loss = evaluation.batch_loss if by_batch else evaluation.loss
        _, lowered = self._plateau.update(jnp.zeros(()), state.plateau, value=loss)
        rate = self._run.config.optimizer.learning_rate * float(lowered.scale)
        _report_validation(log, int(state.step), evaluation, loss, rate)
        for place, prediction in enumerate(evaluation.predictions):
            chip = self._validation[place]
            bands = self._run.band_input.bands
            picture = sample_picture(chip.image, bands, chip.label, prediction)
            log.pictures(int(state.step), f"validation/{place}", picture)
        plateau = put_everywhere(lowered, self._task.mesh)
        return dataclasses.replace(state, statistics=statistics, plateau=plateau), loss

    def _averaged(self, values: Values, statistics: Values) -> Values:
        """The statistics over training batches at these values, or as they are."""
        mesh, size = self._task.mesh, self._order.batch_size
        count = min(self._run.config.optimizer.batchnorm_batches, len(self._chips) // size)
        if not count or not statistics:
            return statistics
        batches = training_batches(
            self._chips, self._order, range(count), rows=partial(local_rows, mesh)
        )
        for k, batch in enumerate(batches):
            on_devices = put_batch(batch, mesh, size)
            statistics = self._statistics(values | statistics, on_devices, jnp.asarray(k))
        return statistics


def _profile(run: Run, start: int) -> Profile:
    """What traces a few steps, or none."""
    first, final = _PROFILED if run.config.log.profile and is_first_process() else (0, -1)
    return Profile(run.folder / "profile", start + first, start + final)


def _log(run: Run, start: int, steps: int) -> RunLog:
    return RunLog(
        run.folder,
        start,
        steps,
        title=run.title,
        settings=run.config.settings(),
        trackers=run.config.log.trackers,
        writes=is_first_process(),
    )


def _run_steps(
    steps: Iterator[tuple[TrainState, jax.Array]],
    done: int,
    *,
    log: RunLog,
    images: int,
    profile: Profile,
    preemption: Preemption,
) -> TrainState:
    """Run the steps to their end, or until told to stop; the state after them.

    Losses are logged while the device runs the next step.
    """
    told, behind = done, np.zeros(0)
    for after, losses in steps:
        state = after
        told, behind = _report(log, told, behind, images), losses
        done += losses.size
        profile.step(done + 1)
        if preemption.asked(done):
            break
    _report(log, told, behind, images)
    return state


def _report(log: RunLog, done: int, losses: jax.Array, images: int) -> int:
    for loss in np.ravel(losses):
        done += 1
        log.progress(done, _finite(float(loss), "loss", done), images)
    return done


def _finite(loss: float, name: str, step: int) -> float:
    """Pass a loss on. Raises InputError where it is not finite."""
    if not math.isfinite(loss):
        raise InputError(
            f"the {name} became {loss} at step {step}: lower --learning-rate, or check the chips "
            "for broken pixels; the checkpoints before that step remain"
        )
    return loss


def _report_validation(
    log: RunLog, step: int, evaluation: Evaluation, loss: float, rate: float
) -> None:
    values = {"loss": _finite(loss, "validation loss", step), **evaluation.metrics}
    log.scalars(step, {f"validation/{name}": value for name, value in values.items()})
    log.scalars(step, {"train/learning_rate": rate})
    log.message(
        f"step {step}: validation loss {loss:.4f}, "
        f"overall accuracy {values['overall_accuracy']:.1%}, "
        f"average over the classes present {values['present_accuracy']:.1%}"
    )
