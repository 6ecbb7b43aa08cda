"""The training loop: one for every device, resumable at any checkpoint."""

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from jaxcrop.allocator import return_freed_memory
from jaxcrop.compiling import compiled, on_cpu
from jaxcrop.config import OptimizerConfig
from jaxcrop.data.augment import Augmentation
from jaxcrop.data.experiment import Experiment
from jaxcrop.data.sampling import Sampling
from jaxcrop.features.backbones import FrozenBackbone
from jaxcrop.figures import save_figure
from jaxcrop.mesh import (
    data_mesh,
    fitting_batch_size,
    is_first_process,
    placement,
)
from jaxcrop.models.segmenter import Head, Segmenter
from jaxcrop.training.checkpoints import Checkpoints
from jaxcrop.training.curves import learning_curves
from jaxcrop.training.feed import (
    Advance,
    ImageFeed,
    cached,
    streamed,
    streamed_together,
    wants_cache,
)
from jaxcrop.training.groups import describe, parameter_groups
from jaxcrop.training.kept_maps import MapFeed, keeps_maps
from jaxcrop.training.logging import RunLog, message, progress_line
from jaxcrop.training.lora import adapters
from jaxcrop.training.losses import make_loss
from jaxcrop.training.network import Network, values_of
from jaxcrop.training.optimizer import adamw
from jaxcrop.training.preemption import Preempted, Preemption
from jaxcrop.training.profiling import Profile
from jaxcrop.training.runs import Run
from jaxcrop.training.step import (
    Task,
    TrainState,
    begun,
    make_cached_steps,
    make_few_steps,
    make_train_step,
    make_update,
    training_network,
)
from jaxcrop.training.validation import Validator, finite

_PROFILED = (3, 6)
"""The first and last step, after the beginning or resuming, that --profile traces."""

_MAPS = "maps"
"""Where a run folder holds the maps that are kept while the run lasts."""


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
    sampling = _sampling(config, len(experiment.refs("train")), mesh)
    last = config.steps if config.epochs is None else sampling.steps(config.epochs)

    task, optimizer, state = _begin(run, model, experiment, mesh)
    checkpoints = Checkpoints(run.folder)
    state, faults = checkpoints.restore(state)
    start = int(state.step)
    if start < last or faults:
        feed = _feed(run, model, experiment, sampling=sampling, task=task)
        validation = experiment.chips("validation", run.band_input)
        validator = Validator(run, task, feed, validation, batch_size=sampling.batch_size)
        steps = range(start, last)
        advance = _advance(run, task, optimizer, state, feed=feed, sampling=sampling, steps=steps)
        with (
            _log(run, start, last) as log,
            closing(_profile(run, start)) as profile,
            Preemption() as preemption,
        ):
            for fault in faults:
                log.message(fault)
            if start:
                log.message(f"going on with {run.folder} from step {start}")
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
                loss = None
                if (done := int(state.step)) == until:
                    state, loss = validator(state, log)
                checkpoints.save(state, loss)
                return_freed_memory()  # what validation and the checkpoint took
                if preemption.stopping and done < last:
                    log.message(
                        f"SIGTERM: checkpoint of step {done} written; the same command goes on"
                    )
                    raise Preempted
    if is_first_process():
        shutil.rmtree(run.folder / _MAPS, ignore_errors=True)
    curves = run.folder / "curves.png"
    if is_first_process() and (start < last or not curves.exists()):
        save_figure(learning_curves(run.folder, synthetic=run.synthetic), curves)


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
    band_input = run.band_input
    if keeps_maps(config):
        size = experiment.chips("train", band_input)[0].label.shape
        network, band_input = Network.of(Head(model, size)), None
    groups = parameter_groups(parameters, config.tuning)
    rates = {name: group.rate for group in groups for name in group.parameters}
    params = {name: values[name] for name in parameters if rates[name]}
    statistics = {name: values[name] for name in network.moving}
    frozen = {name: v for name, v in values.items() if name not in params | statistics}
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

    spread = config.device.shard_parameters
    optimizer = adamw(config.optimizer, {name: rates[name] for name in params}, pack=not spread)
    patience, ema = config.optimizer.plateau_patience, config.optimizer.ema
    begin = compiled(partial(begun, optimizer=optimizer, patience=patience, ema=ema))
    state = dataclasses.replace(begin(params, statistics), frozen=frozen)
    state = jax.device_put(state, placement(state, mesh, spread=spread))
    loss = make_loss(config.loss, experiment.pixels)
    return Task(network, band_input, config.device.compute_dtype, loss, mesh), optimizer, state


def _feed(
    run: Run, model: Segmenter, experiment: Experiment, *, sampling: Sampling, task: Task
) -> ImageFeed | MapFeed:
    """What gives the batches: of images, or of maps that the model's frozen backbone makes."""
    config = run.config
    # Of its own order, and of whole batches: statistics are means over the training chips.
    order = Sampling(sampling.chips, sampling.batch_size, config.optimizer.seed)
    count = config.optimizer.statistics_batches(order.chips, order.batch_size)
    plain = range(count if task.network.moving else 0)
    if not keeps_maps(config):
        chips = (experiment.chips(split, run.band_input) for split in ("train", "validation"))
        return ImageFeed(*chips, order, plain, task.mesh, config.device.workers)
    architecture, dtype = config.model.architecture, config.device.compute_dtype
    feed = MapFeed(
        FrozenBackbone.of(model, architecture, run.band_input, dtype),
        experiment,
        config,
        order=order,
        plain=plain,
        folder=run.folder / _MAPS,
        mesh=task.mesh,
        say=lambda text: progress_line(text, last=False),
    )
    message(
        f"the backbone's maps of every chip take {feed.size / 1e9:.1f} GB of {run.folder / _MAPS} "
        "until the run has ended"
    )
    return feed


def _advance(
    run: Run,
    task: Task,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    *,
    feed: ImageFeed | MapFeed,
    sampling: Sampling,
    steps: range,
) -> Advance:
    """What takes the state through these steps."""
    config = run.config
    placed = jax.tree.map(lambda array: array.sharding, state)
    accumulate, ema = config.optimizer.accumulate, config.optimizer.ema
    # Maps are of images that were augmented before.
    how = "none" if isinstance(feed, MapFeed) else config.optimizer.augmentation
    augmentation = Augmentation(how, config.optimizer.views)
    update = make_update(task, optimizer, augmentation=augmentation, accumulate=accumulate, ema=ema)
    key = jax.random.key(config.optimizer.seed)
    if isinstance(feed, ImageFeed) and wants_cache(feed.chips, config.device):
        program = make_cached_steps(update, placed, task.mesh, remat=config.device.remat)
        return cached(program, feed.chips, sampling, key, mesh=task.mesh)
    batches = feed.training(sampling, steps)
    # A feed of maps has arrays for two batches, not for two times a few.
    if isinstance(feed, ImageFeed) and on_cpu():
        program = make_few_steps(update, placed, task.mesh, remat=config.device.remat)
        return streamed_together(program, batches, sampling, key)
    program = make_train_step(update, placed, task.mesh, remat=config.device.remat)
    return streamed(program, batches, key)


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
        if preemption.asked():
            break
    _report(log, told, behind, images)
    return state


def _report(log: RunLog, done: int, losses: jax.Array, images: int) -> int:
    for loss in np.ravel(losses):
        done += 1
        log.progress(done, finite(float(loss), "loss", done), images)
    return done
