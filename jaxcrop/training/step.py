"""The compiled steps: one update of the model, and one evaluation of a batch of chips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Int32, PRNGKeyArray, UInt8

from jaxcrop.data.augment import augment, normalise
from jaxcrop.data.bands import BandInput
from jaxcrop.data.reading import Batch
from jaxcrop.models.layers import BATCH_NORM_MOMENTUM
from jaxcrop.models.segmenter import Segmenter
from jaxcrop.training.losses import cross_entropy, cross_entropy_sum
from jaxcrop.training.mesh import replicated
from jaxcrop.training.metrics import confusion_matrix


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that a step changes, and so all that a checkpoint must hold.

    `trained` is what the optimiser updates; `rest` the frozen parameters and BatchNorm statistics.
    """

    step: Int32[Array, ""]
    trained: nnx.State
    rest: nnx.State
    optimizer: optax.OptState
    plateau: optax.OptState


class EvalResult(NamedTuple):
    """Sums over a batch, and one confusion matrix (rows truth, columns prediction) per chip."""

    loss_sum: Float[Array, ""]
    pixels: Float[Array, ""]
    confusion: Int[Array, "n classes classes"]


def split_model(model: Segmenter, *, freeze: bool) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Take `model` apart for training: its definition, what is trained, and the rest.

    A frozen backbone is neither updated nor does it move its BatchNorm statistics.
    """
    model.train()
    trained = nnx.Param
    if freeze:
        model.backbone.eval()
        trained = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("backbone")))
    return nnx.split(model, trained, ...)


def loss_and_gradient(
    definition: nnx.GraphDef,
    trained: nnx.State,
    rest: nnx.State,
    image: Float[Array, "n h w band"],
    label: UInt8[Array, "n h w"],
) -> tuple[Float[Array, ""], nnx.State, nnx.State]:
    """Loss of the batch, gradient of `trained`, and `rest` with the statistics of this batch."""

    def loss(trained):
        model = nnx.merge(definition, trained, rest, copy=True)
        value = cross_entropy(model(image), label)
        return value, nnx.state(model, nnx.BatchStat)

    (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(trained)
    return value, gradient, nnx.merge_state(rest, statistics)


def make_train_step(
    definition: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    band_input: BandInput,
    dtype: str,
    mesh: Mesh,
) -> Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, Float[Array, ""]]]:
    """The compiled step: normalise, augment, update; returns the new state and the loss.

    The model computes in `dtype`, what surrounds it in float32. The augmentation of step k depends
    on the key and on k alone. The old state's memory is reused.
    """

    def step(state: TrainState, batch: Batch, key: PRNGKeyArray):
        image, label = augment(
            jax.random.fold_in(key, state.step), normalise(batch.image, band_input), batch.label
        )
        loss, gradient, rest = loss_and_gradient(
            definition, state.trained, state.rest, image.astype(dtype), label
        )
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.trained)
        updates = jax.tree.map(lambda update: update * state.plateau.scale, updates)
        trained = optax.apply_updates(state.trained, updates)
        return TrainState(state.step + 1, trained, rest, optimizer_state, state.plateau), loss

    return jax.jit(step, donate_argnums=0, out_shardings=replicated(mesh))


def make_statistics_step(
    definition: nnx.GraphDef, band_input: BandInput, dtype: str, mesh: Mesh
) -> Callable[[nnx.State, nnx.State, Batch, Int32[Array, ""]], nnx.State]:
    """The compiled pass that averages BatchNorm statistics over batches: `rest` after batch k.

    Passes over batches 0 to n-1 leave the mean of their statistics at the present weights, where
    running averages lag behind weights that still change fast (precise BatchNorm, Wu and Johnson
    2021, arXiv 2105.07576). A frozen backbone keeps its statistics.
    """

    def step(trained: nnx.State, rest: nnx.State, batch: Batch, k: Int32[Array, ""]) -> nnx.State:
        model = nnx.merge(definition, trained, rest, copy=True)
        model(normalise(batch.image, band_input).astype(dtype))
        # A pass moves the statistics by the momentum; the mean needs a step of 1 / (k + 1).
        scale = 1 / (BATCH_NORM_MOMENTUM * (k + 1))
        statistics = jax.tree.map(
            lambda before, after: before + scale * (after - before),
            nnx.filter_state(rest, nnx.BatchStat),
            nnx.state(model, nnx.BatchStat),
        )
        return nnx.merge_state(rest, statistics)

    return jax.jit(step, out_shardings=replicated(mesh))


def restrict(
    logits: Float[Array, "*n classes"], classes: Sequence[int]
) -> Float[Array, "*n classes"]:
    """Logits under which only `classes`, those that the training labels had, can be predicted."""
    allowed = jnp.isin(jnp.arange(logits.shape[-1]), jnp.asarray(classes))
    return jnp.where(allowed, logits, jnp.finfo(logits.dtype).min)


def make_eval_step(
    definition: nnx.GraphDef,
    band_input: BandInput,
    dtype: str,
    classes: Sequence[int],
    mesh: Mesh,
) -> Callable[[tuple[nnx.State, ...], Batch], EvalResult]:
    """The compiled evaluation of a batch by the model with the given parts of its state.

    Only `classes` are predicted: not the ignored class, nor one that no training label had.
    """

    def step(states: tuple[nnx.State, ...], batch: Batch) -> EvalResult:
        model = nnx.merge(definition, *states)
        model.eval()
        logits = model(normalise(batch.image, band_input).astype(dtype))
        loss_sum, pixels = cross_entropy_sum(logits, batch.label)
        prediction = jnp.argmax(restrict(logits, classes), axis=-1)
        confusion = confusion_matrix(batch.label, prediction, logits.shape[-1])
        return EvalResult(loss_sum, pixels, confusion)

    return jax.jit(step, out_shardings=replicated(mesh))
