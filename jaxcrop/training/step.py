"""The compiled steps: updates of the model, and one evaluation of a batch of chips."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Int32, PRNGKeyArray, UInt8, UInt16

from jaxcrop.compiling import compiled
from jaxcrop.config import TuningConfig
from jaxcrop.data.augment import FRESH, Augmentation, augment, normalise
from jaxcrop.data.bands import BandInput
from jaxcrop.data.reading import Batch
from jaxcrop.mesh import replicated, split_over
from jaxcrop.models.layers import BATCH_NORM_MOMENTUM
from jaxcrop.models.segmenter import Segmenter
from jaxcrop.training.calibration import calibration_bins
from jaxcrop.training.lora import merged
from jaxcrop.training.losses import Loss, cross_entropy_sum
from jaxcrop.training.metrics import confusion_matrix
from jaxcrop.training.network import Network, Values, statistics_of
from jaxcrop.training.optimizer import moving_average, reduce_on_plateau


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that a step changes, and so all that a checkpoint must hold.

    `params` is what the optimiser updates, LoRA's adapters among it; `statistics` are those of
    batch normalisation that batches move; `frozen` is the rest of the model; `average` the moving
    average of `params`, or empty.
    """

    step: Int32[Array, ""]
    params: Values
    frozen: Values
    statistics: Values
    average: Values
    optimizer: optax.OptState
    plateau: optax.OptState

    @property
    def model(self) -> Values:
        """The values of the model that is validated and kept."""
        return merged(self.frozen | self.statistics | (self.average or self.params))


def begun(
    params: Values,
    statistics: Values,
    optimizer: optax.GradientTransformation,
    *,
    patience: int,
    ema: float | None = None,
) -> TrainState:
    """The state in which training begins, with nothing frozen: to be compiled."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        frozen={},
        statistics=statistics,
        # A copy: the step reuses the memory of what it is given, each array once.
        average=jax.tree.map(jnp.copy, params) if ema is not None else {},
        optimizer=optimizer.init(params),
        plateau=reduce_on_plateau(patience).init(jnp.zeros(())),
    )


class EvalResult(NamedTuple):
    """Sums over a batch, and one confusion matrix (rows truth, columns prediction) per chip."""

    loss_sum: Float[Array, ""]
    pixels: Float[Array, ""]
    confusion: Int[Array, "n classes classes"]
    calibration: Float[Array, "bins 3"]


Seen = Float[Array, "n h w band"] | tuple[Float[Array, "n _h _w _c"], ...]
"""What a network sees of chips: normalised images or, where it is a head, their maps."""


def seen(image: UInt16[Array, "n h w band"] | Seen, band_input: BandInput | None) -> Seen:
    """The images or maps of a batch as a network sees them."""
    return image if band_input is None else normalise(image, band_input)


def in_type(image: Seen, dtype: str) -> Seen:
    """The same in the type that the network computes in."""
    return jax.tree.map(lambda x: x.astype(dtype), image)


@dataclass(frozen=True)
class Task:
    """What does not change during training: the network, how it sees chips, and its loss.

    The network computes in `dtype`, what surrounds it in float32. Where it is a head, it sees the
    maps that a batch has in place of images, and there is no `band_input`.
    """

    network: Network
    band_input: BandInput | None
    dtype: str
    loss: Loss
    mesh: Mesh

    def logits(self, values: Values, image: Seen) -> tuple[Float[Array, "n h w classes"], Values]:
        """Logits of what the network sees, and the statistics after it."""
        module = self.network.module(values)
        return module(in_type(image, self.dtype)), statistics_of(module, self.network.moving)


def training_network(model: Segmenter, config: TuningConfig) -> Network:
    """The network of a model as it is trained.

    A backbone that is not trained in full keeps its BatchNorm statistics unless `config` lets them
    move: keeping its parameters alone does not.
    """
    model.train()
    in_full = config.tune in ("full", "discriminative")
    if not in_full and config.frozen_batchnorm == "keep":
        model.backbone.eval()
    return Network.of(model)


def loss_and_gradient(
    task: Task,
    params: Values,
    rest: Values,
    image: Seen,
    label: UInt8[Array, "n h w"],
    *,
    total: Float[Array, ""] | None = None,
    parts: int = 1,
) -> tuple[Float[Array, ""], Values, Values]:
    """Loss, gradient of `params`, and the statistics that these images or maps moved.

    `rest` are the other values; `total` and `parts` are the loss's.
    """

    def loss(params: Values) -> tuple[Float[Array, ""], Values]:
        logits, moved = task.logits(merged(rest | params), image)
        return task.loss(logits, label, total, parts), moved

    (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return value, gradient, statistics


def batch_gradient(
    task: Task,
    params: Values,
    rest: Values,
    batch: Batch,
    keys: PRNGKeyArray | None,
    *,
    parts: int = 1,
) -> tuple[Float[Array, ""], Values, Values]:
    """Loss of the augmented batch, gradient of `params`, and the statistics that it moved.

    `rest` are the other values; image i is augmented by `keys[i]`, none without keys. The batch is
    computed in `parts`: the statistics are moved by each, and a region loss is the mean of theirs.
    """

    def augmented(image, label, keys):
        return (image, label) if keys is None else augment(keys, image, label)

    # The loss divides by the labelled pixels of the whole batch, which the crops decide.
    label = augmented(batch.image, batch.label, keys)[1]
    total = task.loss.weight(label)
    statistics = {name: rest[name] for name in task.network.moving}

    def in_parts(x: Array) -> Array:
        # Every part takes chips of each device, so none has to move.
        return x.reshape(len(x) // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    pieces = jax.tree.map(in_parts, (batch.image, batch.label, keys))
    sums = None  # of the loss and the gradient
    # The barrier has the parts wait for each other, so that they need the memory of one.
    for number in range(parts):
        piece = jax.tree.map(lambda x: x[number], pieces)  # noqa: B023 -- called at once
        (image, label, keys), sums = jax.lax.optimization_barrier((piece, sums))
        image, label = augmented(seen(image, task.band_input), label, keys)
        *found, statistics = loss_and_gradient(
            task, params, rest | statistics, image, label, total=total, parts=parts
        )
        sums = found if sums is None else jax.tree.map(jnp.add, sums, found)
    value, gradient = sums
    return value, gradient, statistics


Update = Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, Float[Array, ""]]]
"""One step, to be compiled: the new state and the loss."""


def make_update(
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    augmentation: Augmentation = FRESH,
    accumulate: int = 1,
    ema: float | None = None,
) -> Update:
    """The step that normalises, augments and updates.

    The augmentation of chip i in step k depends on the key, k and i alone, or on the chip.
    """

    def update(state: TrainState, batch: Batch, key: PRNGKeyArray):
        keys = augmentation.keys(key, state.step, batch.number)
        loss, gradient, statistics = batch_gradient(
            task,
            state.params,
            state.frozen | state.statistics,
            batch,
            keys,
            parts=math.gcd(len(batch.label), accumulate),
        )
        return advanced(state, gradient, statistics, optimizer, ema=ema), loss

    return update


def advanced(
    state: TrainState,
    gradient: Values,
    statistics: Values,
    optimizer: optax.GradientTransformation,
    *,
    ema: float | None = None,
) -> TrainState:
    """The state after a step with this gradient, which left these statistics."""
    updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
    updates = jax.tree.map(lambda change: change * state.plateau.scale, updates)
    params = optax.apply_updates(state.params, updates)
    average = moving_average(state.average, params, ema, state.step) if ema is not None else {}
    return TrainState(
        state.step + 1, params, state.frozen, statistics, average, optimizer_state, state.plateau
    )


def make_train_step(
    update: Update, placed: TrainState, mesh: Mesh, *, remat: bool = False
) -> Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, Float[Array, ""]]]:
    """The compiled step for batches that the host sends.

    `placed` are the shardings of the state, `remat` whether its model recomputes activations. The
    old state's memory is reused.
    """
    where = placed, replicated(mesh)
    return compiled(update, remat=remat, donate_argnums=0, out_shardings=where)


AT_ONCE = 4
"""So many steps a CPU takes by one program."""

State = TypeVar("State")


def in_turn(
    step: Callable[[State, Any], tuple[State, Float[Array, "..."]]],
    state: State,
    batches: Sequence[Any],
    count: Int[Array, ""],
    shape: tuple[int, ...] = (),
) -> tuple[State, Float[Array, "steps ..."]]:
    """The state after a step on each of the first `count` batches, and the losses of each step.

    On a CPU the kernel gives a program its memory, and clears it, each time it is run: of a program
    of one step that takes a tenth of the time.
    """
    if len(batches) == 1:  # an accelerator asks the host where a loop ends
        state, loss = step(state, batches[0])
        return state, loss[None]

    def one(k: Int[Array, ""], carry: tuple[State, Array]) -> tuple[State, Array]:
        state, losses = carry
        batch = jax.lax.switch(k, [lambda batch=batch: batch for batch in batches])
        state, loss = step(state, batch)
        return state, losses.at[k].set(loss)

    return jax.lax.fori_loop(0, count, one, (state, jnp.zeros((len(batches), *shape))))


def make_few_steps(
    update: Update, placed: TrainState, mesh: Mesh, *, remat: bool = False
) -> Callable[..., tuple[TrainState, Float[Array, " steps"]]]:
    """Up to `AT_ONCE` steps as one program: (state, batches, count, key), the losses of each.

    Of the batches, which the host sends and which are of one size, the first `count` are taken; the
    rest as in `make_train_step`.
    """

    def steps(
        state: TrainState, batches: Sequence[Batch], count: Int[Array, ""], key: PRNGKeyArray
    ):
        return in_turn(lambda state, batch: update(state, batch, key), state, batches, count)

    where = placed, replicated(mesh)
    return compiled(steps, remat=remat, donate_argnums=0, out_shardings=where)


def make_cached_steps(
    update: Update, placed: TrainState, mesh: Mesh, *, remat: bool = False
) -> Callable[..., tuple[TrainState, Float[Array, " steps"]]]:
    """Many steps as one program, for chips that lie on the device: (state, chips, order, key).

    Row k of `order` (steps, n) are the positions of the chips of the k-th batch; the rest as in
    `make_train_step`.
    """

    def steps(state: TrainState, chips: Batch, order: Int[Array, "steps n"], key: PRNGKeyArray):
        where = split_over(mesh, order.shape[1])

        def one(state: TrainState, chosen: Int[Array, " n"]):
            chosen = jax.lax.with_sharding_constraint(chosen, where)
            return update(state, Batch(*(jnp.take(part, chosen, axis=0) for part in chips)), key)

        return jax.lax.scan(one, state, order)

    where = placed, replicated(mesh)
    return compiled(steps, remat=remat, donate_argnums=0, out_shardings=where)


def make_statistics_step(task: Task) -> Callable[[Values, Batch, Int32[Array, ""]], Values]:
    """The compiled pass that averages BatchNorm statistics over batches: statistics after batch k.

    Passes over batches 0 to n-1 leave the mean of their statistics at the present weights, where
    running averages lag behind weights that still change fast (precise BatchNorm, Wu and Johnson
    2021, arXiv 2105.07576). A frozen backbone keeps its statistics.
    """
    moving = task.network.moving

    def step(values: Values, batch: Batch, k: Int32[Array, ""]) -> Values:
        _, after = task.logits(values, seen(batch.image, task.band_input))
        return averaged(values, after, k, moving)

    return compiled(step, out_shardings=replicated(task.mesh))


def averaged(values: Values, after: Values, k: Int32[Array, ""], names: Iterable[str]) -> Values:
    """The mean statistics over batches 0 to `k`, where batch `k` moved those before to `after`."""
    # A pass moves the statistics by the momentum; the mean needs a step of 1 / (k + 1).
    scale = 1 / (BATCH_NORM_MOMENTUM * (k + 1))
    return {name: values[name] + scale * (after[name] - values[name]) for name in names}


def restrict(
    logits: Float[Array, "*n classes"], classes: Sequence[int]
) -> Float[Array, "*n classes"]:
    """Logits under which only `classes` can be predicted."""
    allowed = jnp.isin(jnp.arange(logits.shape[-1]), jnp.asarray(classes))
    return jnp.where(allowed, logits, jnp.finfo(logits.dtype).min)


def make_eval_step(
    network: Network, band_input: BandInput | None, dtype: str, classes: Sequence[int], mesh: Mesh
) -> Callable[[Values, Batch], tuple[EvalResult, UInt8[Array, "n h w"]]]:
    """The compiled evaluation of a batch by the model with the given values, and its predictions.

    Only `classes` are predicted. The result is on every device, the predictions stay where they
    are computed. Equal arguments give one program: a run's validation is its test too.
    """
    return _eval_step(network.evaluating(), band_input, dtype, tuple(classes), mesh)


@lru_cache(maxsize=4)
def _eval_step(
    network: Network, band_input: BandInput | None, dtype: str, classes: tuple[int, ...], mesh: Mesh
) -> Callable[[Values, Batch], tuple[EvalResult, UInt8[Array, "n h w"]]]:
    def step(values: Values, batch: Batch) -> tuple[EvalResult, UInt8[Array, "n h w"]]:
        logits = network.module(values)(in_type(seen(batch.image, band_input), dtype))
        return evaluated(logits, batch.label, classes)

    return compiled(step, out_shardings=(replicated(mesh), None))


def evaluated(
    logits: Float[Array, "n h w classes"], label: UInt8[Array, "n h w"], classes: Sequence[int]
) -> tuple[EvalResult, UInt8[Array, "n h w"]]:
    """What logits say of labelled chips where only `classes` are predicted; and the predictions."""
    loss_sum, pixels = cross_entropy_sum(logits, label)
    allowed = restrict(logits, classes)
    prediction = jnp.argmax(allowed, axis=-1)
    confusion = confusion_matrix(label, prediction, logits.shape[-1])
    bins = calibration_bins(allowed, label)
    return EvalResult(loss_sum, pixels, confusion, bins), prediction.astype(jnp.uint8)
