"""Decoders of many cells, trained together on the features of one frozen backbone."""

import dataclasses
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from threading import Event
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8

from jaxcrop.compiling import compiled
from jaxcrop.config import LossConfig, OptimizerConfig, TrainConfig
from jaxcrop.data.augment import Augmentation
from jaxcrop.data.experiment import ChipRef, Experiment
from jaxcrop.data.sampling import Sampling
from jaxcrop.errors import InputError
from jaxcrop.features.bank import ArraysInTurn, FeatureBank
from jaxcrop.mesh import data_mesh, one_behind, replicated, split_over
from jaxcrop.models.segmenter import Head, Segmenter
from jaxcrop.training.evaluation import Evaluation, collected
from jaxcrop.training.losses import Loss, class_weights
from jaxcrop.training.network import Network, Values, statistics_of, values_of
from jaxcrop.training.optimizer import adamw, reduce_on_plateau
from jaxcrop.training.runs import predicted_classes
from jaxcrop.training.step import (
    AT_ONCE,
    EvalResult,
    TrainState,
    advanced,
    averaged,
    begun,
    evaluated,
    in_turn,
    in_type,
)

Maps = tuple[Float[Array, "heads n _h _w _c"], ...]
Batches = tuple[Maps, UInt8[Array, "heads n h w"]]
"""The maps and labels of a batch of each head."""


@dataclass(frozen=True)
class Job:
    """One head to train: its settings, its chips, and the weights that it begins with."""

    config: TrainConfig
    experiment: Experiment
    values: Values

    @property
    def sampling(self) -> Sampling:
        """What composes its batches, as in a training run on one device."""
        optimizer = self.config.optimizer
        chips = len(self.experiment.refs("train"))
        size = min(optimizer.batch_size, chips)
        return Sampling(chips, size, optimizer.seed, optimizer.sampling)

    @property
    def last(self) -> int:
        """The number of steps in all."""
        optimizer = self.config.optimizer
        if optimizer.epochs is None:
            return optimizer.steps
        return self.sampling.steps(optimizer.epochs)


class Trained(NamedTuple):
    """What became of a head: its evaluation on the test chips, and the loss of each step."""

    evaluation: Evaluation
    losses: Float[np.ndarray, " steps"]


def head_values(model: Segmenter) -> Values:
    """The values of a model's head by name."""
    return {n: value for n, value in values_of(model).items() if not n.startswith("backbone.")}


def train_heads(
    jobs: Sequence[Job],
    model: Segmenter,
    bank: FeatureBank,
    *,
    together: bool,
    say: Callable[[str], None] = lambda text: None,
) -> list[Trained | InputError]:
    """What each job's head came to, or what stopped it.

    `model` has the head's architecture. The jobs differ by seed and learning rate alone. `together`
    trains all by one program, under `vmap`; else a program of one head trains them, two at a time.
    The results are those of training runs, up to rounding.
    """
    config, head = jobs[0].config, Head(model, bank.size)
    head.train()
    optimizer = dataclasses.replace(config.optimizer, seed=0)
    dtype = config.device.compute_dtype
    programs = _programs(Network.of(head), optimizer, config.loss, dtype)
    stopping = Event()

    def feed(at_once: int) -> _Feed:
        return _Feed(bank, programs.mesh, at_once, stopping)

    if together:
        return _train(jobs, feed(1), programs, say)
    # Where one has nothing for all cores to do, between two operations, the other has.
    with ThreadPoolExecutor(min(_AT_A_TIME, len(os.sched_getaffinity(0)))) as threads:
        each = [threads.submit(_train, [job], feed(AT_ONCE), programs, say) for job in jobs]
        try:
            for ended in as_completed(each):
                ended.result()  # raises what ended it, while others go on
        except BaseException:
            stopping.set()  # or the threads would go on to the end of their jobs
            threads.shutdown(cancel_futures=True)
            raise
        return [outcome for of_job in each for outcome in of_job.result()]


_AT_A_TIME = 2
"""More heads take hardly less time, and more memory."""


class _Programs:
    """The compiled programs of some heads, of one shape each."""

    def __init__(
        self,
        network: Network,
        optimizer: OptimizerConfig,
        loss_config: LossConfig,
        dtype: str,
    ):
        self.learning_rate = optimizer.learning_rate
        self.mesh: Mesh = data_mesh()
        self.moving = network.names(nnx.BatchStat)
        adam = adamw(optimizer, dict.fromkeys(network.names(nnx.Param), 1.0))
        plateau = reduce_on_plateau(optimizer.plateau_patience)

        def begin(values: Values) -> TrainState:
            params = {name: v for name, v in values.items() if name not in self.moving}
            statistics = {name: values[name] for name in self.moving}
            patience = optimizer.plateau_patience
            return begun(params, statistics, adam, patience=patience, ema=optimizer.ema)

        self.begin = compiled(begin)

        def lower(state, loss: Float[Array, ""]):
            return plateau.update(jnp.zeros(()), state, value=loss)[1]

        self.lower = compiled(jax.vmap(lower))

        def logits(values: Values, maps: Maps, training: bool):
            module = network.module(values)
            if not training:
                module.eval()
            return module(in_type(maps, dtype)), statistics_of(module, self.moving)

        def update(state: TrainState, rate, weights, maps: Maps, label):
            def loss_of(params: Values):
                out, moved = logits(params | state.statistics, maps, training=True)
                return Loss(loss_config, weights)(out, label), moved

            (loss, moved), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
            # AdamW's step, decay and all, is in proportion to the learning rate.
            scaled = state.plateau._replace(scale=state.plateau.scale * rate)
            faster = dataclasses.replace(state, plateau=scaled)
            new = advanced(faster, gradient, moved, adam, ema=optimizer.ema)
            return dataclasses.replace(new, plateau=state.plateau), loss

        def of_heads(function: Callable) -> Callable:
            """Over heads along the first axis: mapped, or plainly where there is one."""

            def run(*stacked):
                if len(jax.tree.leaves(stacked)[0]) > 1:
                    return jax.vmap(function)(*stacked)
                out = function(*jax.tree.map(lambda x: x[0], stacked))
                return jax.tree.map(lambda x: x[None], out)

            return run

        of_each = of_heads(update)

        def updates(state: TrainState, rates, weights, batches, count: Int[Array, ""]):
            def step(state: TrainState, batch: Batches):
                return of_each(state, rates, weights, *batch)

            return in_turn(step, state, batches, count, rates.shape)

        self.update = compiled(updates, donate_argnums=0)

        def statistics(values: Values, maps: Maps, k):
            _, after = logits(values, maps, training=True)
            return averaged(values, after, k, self.moving)

        self.statistics = compiled(of_heads(statistics))

        def evaluate(values: Values, maps: Maps, label, classes: tuple[int, ...]):
            maps, label = jax.tree.map(lambda x: x[0], (maps, label))
            out, _ = logits(values, maps, training=False)
            return evaluated(out, label, classes)

        self.evaluate = compiled(evaluate, static_argnums=3)

        def of_head(values: Values, number: Int[Array, ""]) -> Values:
            return {name: value[number] for name, value in values.items()}

        self.of_head = compiled(of_head, out_shardings=replicated(self.mesh))


_programs = lru_cache(maxsize=4)(_Programs)
"""The heads of a study's other groups mostly have the shape and the options of these."""


class _Feed:
    """Puts the batches of heads on the devices, by way of a few sets of arrays in turn.

    A program takes `at_once` batches for training. Raises CancelledError once `stopping` is set.
    """

    def __init__(self, bank: FeatureBank, mesh: Mesh, at_once: int, stopping: Event):
        self._bank, self._mesh, self.at_once, self._stopping = bank, mesh, at_once, stopping
        sets = max(2, at_once)
        self._arrays = ArraysInTurn(sets)
        self._readers: deque[Any] = deque([None] * sets)

    def batch(
        self,
        refs: Sequence[Sequence[ChipRef]],
        views: Sequence[Int[np.ndarray, " n"] | None] | None = None,
        size: int | None = None,
    ) -> Batches:
        """The maps and labels of each head's chips, and of none up to `size`."""
        if self._stopping.is_set():
            raise CancelledError
        self._readers.rotate(-1)
        jax.block_until_ready(self._readers[-1])  # these arrays may be what the device reads
        maps, label = self._arrays.of(self._bank, len(refs), size or len(refs[0]))
        for head, of_head in enumerate(refs):
            arrays = tuple(x[head] for x in maps), label[head]
            self._bank.fill(arrays, of_head, None if views is None else views[head])
        return _spread((maps, label), self._mesh)

    def read_by(self, result: Any, batches: int = 1) -> None:
        """Say what was computed of the last batches: their arrays are filled anew after that."""
        for back in range(1, batches + 1):
            self._readers[-back] = result


def _train(
    jobs: Sequence[Job], feed: _Feed, programs: _Programs, say: Callable[[str], None]
) -> list[Trained | InputError]:
    config = jobs[0].config.optimizer
    state = _spread(_stacked([programs.begin(job.values) for job in jobs]), programs.mesh)
    rates = np.array([j.config.optimizer.learning_rate for j in jobs]) / programs.learning_rate
    weights = np.stack(
        [class_weights(job.config.loss.class_weights, job.experiment.pixels) for job in jobs]
    )
    rates, weights = _spread((rates.astype(np.float32), weights), programs.mesh)
    augmentation = Augmentation(config.augmentation, config.views)
    best: list[tuple[float, Values]] = [(math.inf, {})] * len(jobs)
    faults: dict[int, InputError] = {}
    samplings, done, last = [job.sampling for job in jobs], 0, jobs[0].last
    views = [
        augmentation.views_by_step(
            jax.random.key(job.config.optimizer.seed), job.sampling, range(last)
        )
        for job in jobs
    ]
    chips = [job.experiment.refs("train") for job in jobs]
    training: list[tuple[Float[Array, "steps heads"], int]] = []
    while done < last:
        until = min(last, samplings[0].validation_after(done, config.eval_every))
        for few in samplings[0].alike(range(done, until), feed.at_once):
            count = len(few)
            batches = [
                feed.batch(_chosen(chips, samplings, k), [of_head.get(k) for of_head in views])
                for k in few
            ]
            batches += batches[-1:] * (feed.at_once - count)
            state, losses = programs.update(state, rates, weights, batches, count)
            feed.read_by(losses, count)
            training.append((losses, count))
        done = until
        state, validation = _validate(jobs, state, feed, programs)
        say(f"step {done}/{last}: validation loss {', '.join(f'{v:.4f}' for v in validation)}")
        for number in np.flatnonzero(~np.isfinite(np.asarray(losses)[count - 1] + validation)):
            faults.setdefault(int(number), _not_finite(jobs[number], done))
        for number, value in enumerate(validation):
            if value < best[number][0]:
                best[number] = (value, jax.device_get(programs.of_head(state.model, number)))
    outcomes: list[Trained | InputError] = []
    losses = np.concatenate([np.asarray(losses)[:count] for losses, count in training]).T
    for number, job in enumerate(jobs):
        values = best[number][1]
        if job.config.scoring.test_checkpoint == "last" or not values:
            values = jax.device_get(programs.of_head(state.model, number))
        size = job.config.optimizer.batch_size
        if number in faults:
            outcomes.append(faults[number])
            continue
        found = one_behind(_results(job, "test", values, feed, programs, size=size))
        outcomes.append(Trained(collected(found, _SHOWN), losses[number]))
    return outcomes


def _chosen(
    chips: Sequence[Sequence[ChipRef]], samplings: Sequence[Sampling], step: int
) -> list[list[ChipRef]]:
    """The chips of each head's batch in a step."""
    return [
        [refs[k] for k in sampling.batch(step)]
        for refs, sampling in zip(chips, samplings, strict=True)
    ]


_SHOWN = 4
"""Test chips whose predictions are kept."""


def _validate(
    jobs: Sequence[Job], state: TrainState, feed: _Feed, programs: _Programs
) -> tuple[TrainState, list[float]]:
    """The state to go on with, and each head's validation loss (`jaxcrop.training.validation`)."""
    config = jobs[0].config
    sampling = jobs[0].sampling
    count = config.optimizer.statistics_batches(sampling.chips, sampling.batch_size)
    if count and programs.moving:
        statistics = state.statistics
        chips = [job.experiment.refs("train") for job in jobs]
        orders = [dataclasses.replace(job.sampling, how="shuffled") for job in jobs]
        for k in range(count):
            maps, _ = feed.batch(_chosen(chips, orders, k))
            ks = np.full(len(jobs), k)
            statistics = programs.statistics(state.model | statistics, maps, ks)
            feed.read_by(statistics)
        state = dataclasses.replace(state, statistics=statistics)
    by_batch = config.scoring.validation_loss == "batches"

    def results():
        for number, job in enumerate(jobs):
            values, size = programs.of_head(state.model, number), sampling.batch_size
            for result in _results(job, "validation", values, feed, programs, size=size):
                yield number, result

    losses = []
    for _, of_head in groupby(one_behind(results()), key=itemgetter(0)):
        found = collected(result for _, result in of_head)
        losses.append(found.batch_loss if by_batch else found.loss)
    plateau = programs.lower(state.plateau, np.array(losses, np.float32))
    return dataclasses.replace(state, plateau=plateau), losses


def _results(
    job: Job, split: str, values: Values, feed: _Feed, programs: _Programs, *, size: int
) -> Iterator[tuple[tuple[str, ...], EvalResult, UInt8[Array, "n h w"]]]:
    """What the head of these values makes of a split's chips, `size` at a time, as it begins."""
    refs = job.experiment.refs(split)
    classes = predicted_classes(job.config.scoring.predict, job.experiment.classes)
    size = min(size, len(refs))
    for start in range(0, len(refs), size):
        group = refs[start : start + size]
        found = programs.evaluate(values, *feed.batch([group], size=size), classes)
        feed.read_by(found)
        yield tuple(chip_id for _, chip_id in group), *found


def _not_finite(job: Job, step: int) -> InputError:
    rate = job.config.optimizer.learning_rate
    return InputError(
        f"the loss became infinite or no number by step {step} at learning rate {rate:g}: lower it"
    )


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)


def _spread(tree: Any, mesh: Mesh) -> Any:
    """Put on the devices, heads divided over them where their number allows."""
    return jax.tree.map(lambda array: jax.device_put(array, split_over(mesh, len(array))), tree)
