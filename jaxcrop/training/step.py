"""The compiled steps: one update of the model, and one evaluation of a batch of chips."""

from collections.abc import Callable
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
    mesh: Mesh,
) -> Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, Float[Array, ""]]]:
    """The compiled step: normalise, augment, update; returns the new state and the loss.

    The augmentation of step k depends on the key and on k alone. The old state's memory is reused.
    """

    def step(state: TrainState, batch: Batch, key: PRNGKeyArray):
        image, label = augment(
            jax.random.fold_in(key, state.step), normalise(batch.image, band_input), batch.label
        )
        loss, gradient, rest = loss_and_gradient(
            definition, state.trained, state.rest, image, label
        )
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.trained)
        updates = jax.tree.map(lambda update: update * state.plateau.scale, updates)
        trained = optax.apply_updates(state.trained, updates)
        return TrainState(state.step + 1, trained, rest, optimizer_state, state.plateau), loss

    return jax.jit(step, donate_argnums=0, out_shardings=replicated(mesh))


def make_eval_step(
    definition: nnx.GraphDef, band_input: BandInput, mesh: Mesh
) -> Callable[[tuple[nnx.State, ...], Batch], EvalResult]:
    """The compiled evaluation of a batch by the model with the given parts of its state.

    No pixel is ever predicted as ignored, though the logits have that class.
    """

    def step(states: tuple[nnx.State, ...], batch: Batch) -> EvalResult:
        model = nnx.merge(definition, *states)
        model.eval()
        logits = model(normalise(batch.image, band_input))
        loss_sum, pixels = cross_entropy_sum(logits, batch.label)
        prediction = 1 + jnp.argmax(logits[..., 1:], axis=-1)
        confusion = confusion_matrix(batch.label, prediction, logits.shape[-1])
        return EvalResult(loss_sum, pixels, confusion)

    return jax.jit(step, out_shardings=replicated(mesh))
