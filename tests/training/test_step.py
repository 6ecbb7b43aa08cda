"""The compiled steps on a small network: sharding, freezing, statistics, restricted classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh

from jaxcrop.data.bands import BandInput
from jaxcrop.data.reading import Batch
from jaxcrop.models.layers import BatchNorm, Conv, widened
from jaxcrop.training.mesh import data_mesh, put_batch, replicated
from jaxcrop.training.optimizer import adamw, reduce_on_plateau
from jaxcrop.training.step import (
    TrainState,
    make_eval_step,
    make_statistics_step,
    make_train_step,
    split_model,
)

BANDS = BandInput(("B04", "B08"), (0.0, 0.0), (3000.0, 5000.0), clip=False)


class Tiny(nnx.Module):
    """Two convolutions with batch normalisation: a backbone, and a decoder to the logits."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.backbone = nnx.Sequential(Conv(2, 8, 3, rngs=rngs), BatchNorm(8, rngs=rngs))
        self.decoder = nnx.Sequential(
            Conv(8, 6, 3, rngs=rngs), BatchNorm(6, rngs=rngs), Conv(6, 6, 1, rngs=rngs)
        )

    def __call__(self, image):
        return widened(self.decoder(jax.nn.relu(self.backbone(image))))


def _batch(seed, size=4):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 8000, (size, 16, 16, 2)).astype(np.uint16)
    image[: size // 2] //= 4  # the two devices see different brightness, so their statistics differ
    return Batch(image, rng.integers(0, 6, (size, 16, 16)).astype(np.uint8))


def _state(mesh, *, freeze):
    definition, trained, rest = split_model(Tiny(rngs=nnx.Rngs(0)), freeze=freeze)
    optimizer = adamw(1e-3, 0.01)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        trained=trained,
        rest=rest,
        optimizer=optimizer.init(trained),
        plateau=reduce_on_plateau(1).init(jnp.zeros(())),
    )
    return definition, optimizer, jax.device_put(state, replicated(mesh))


def _one_device():
    return Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))


def _arrays(state):
    return {
        ".".join(map(str, path)): np.asarray(variable[...])
        for path, variable in nnx.to_flat_state(state)
    }


def test_two_devices_compute_what_one_computes():
    """Loss, gradient (AdamW's first moment) and statistics are those of the global batch."""
    results = []
    for mesh in (_one_device(), data_mesh()):
        definition, optimizer, state = _state(mesh, freeze=False)
        step = make_train_step(definition, optimizer, BANDS, "float32", mesh)
        state, loss = step(state, put_batch(_batch(0), mesh), jax.random.key(0))
        results.append((float(loss), _arrays(state.optimizer[0].mu), _arrays(state.rest)))
    assert data_mesh().size == 2
    (loss_1, moment_1, rest_1), (loss_2, moment_2, rest_2) = results
    np.testing.assert_allclose(loss_1, loss_2, rtol=1e-6)
    for one, two in ((moment_1, moment_2), (rest_1, rest_2)):
        for name in one:
            np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_in_bfloat16_only_the_network_is_narrow():
    """Nearly the loss and statistics of float32; all that is kept stays in float32."""
    mesh = _one_device()
    batch, results = put_batch(_batch(0), mesh), []
    for dtype in ("float32", "bfloat16"):
        definition, optimizer, state = _state(mesh, freeze=False)
        step = make_train_step(definition, optimizer, BANDS, dtype, mesh)
        state, loss = step(state, batch, jax.random.key(0))
        statistics = make_statistics_step(definition, BANDS, dtype, mesh)
        rest = statistics(state.trained, state.rest, batch, jnp.asarray(0))
        evaluate = make_eval_step(definition, BANDS, dtype, range(1, 6), mesh)
        result = evaluate((state.trained, rest), batch)
        kept = _arrays(state.trained) | _arrays(rest)
        assert {array.dtype for array in kept.values()} == {np.dtype("float32")}
        results.append((float(loss), float(result.loss_sum), _arrays(rest)))
    (loss, loss_sum, rest), (narrow_loss, narrow_sum, narrow_rest) = results
    assert 0 < abs(narrow_loss / loss - 1) < 0.01
    assert 0 < abs(narrow_sum / loss_sum - 1) < 0.01
    for name, value in rest.items():
        np.testing.assert_allclose(narrow_rest[name], value, rtol=0.05, atol=0.02, err_msg=name)


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_means_frozen(freeze):
    mesh = _one_device()
    definition, optimizer, state = _state(mesh, freeze=freeze)
    before = _arrays(state.trained) | _arrays(state.rest)
    step = make_train_step(definition, optimizer, BANDS, "float32", mesh)
    statistics = make_statistics_step(definition, BANDS, "float32", mesh)
    for seed in range(2):
        batch = put_batch(_batch(seed), mesh)
        state, _ = step(state, batch, jax.random.key(0))
    rest = statistics(state.trained, state.rest, batch, jnp.asarray(0))
    after = _arrays(state.trained) | _arrays(rest)
    assert before.keys() == after.keys()
    for name, value in before.items():
        frozen = freeze and name.startswith("backbone")
        assert np.array_equal(value, after[name]) == frozen, name


def test_statistics_are_the_mean_over_batches():
    """As torch's BatchNorm with momentum=None, its cumulative average, computes them."""
    torch = pytest.importorskip("torch")
    mesh = data_mesh()
    definition, _, state = _state(mesh, freeze=False)
    weights = _arrays(state.trained)
    conv = torch.nn.Conv2d(2, 8, 3, padding=1, bias=False)
    kernel = weights["backbone.layers.0.kernel"].transpose(3, 2, 0, 1)
    conv.weight = torch.nn.Parameter(torch.from_numpy(kernel.copy()))
    norm = torch.nn.BatchNorm2d(8, momentum=None)
    step = make_statistics_step(definition, BANDS, "float32", mesh)
    rest = state.rest
    for k in range(3):
        batch = _batch(k)
        rest = step(state.trained, rest, put_batch(batch, mesh), jnp.asarray(k))
        image = batch.image / np.float32([3000, 5000])
        norm(conv(torch.from_numpy(image.astype(np.float32)).permute(0, 3, 1, 2)))
    got = _arrays(rest)
    np.testing.assert_allclose(got["backbone.layers.1.mean"], norm.running_mean, rtol=1e-4)
    np.testing.assert_allclose(got["backbone.layers.1.var"], norm.running_var, rtol=1e-4)


def test_only_classes_of_the_training_labels_are_predicted():
    mesh = data_mesh()
    definition, _, state = _state(mesh, freeze=False)
    batch = _batch(0)
    step = make_eval_step(definition, BANDS, "float32", (2, 5), mesh)
    result = step((state.trained, state.rest), put_batch(batch, mesh))
    predicted = np.asarray(result.confusion).sum((0, 1))
    assert set(np.flatnonzero(predicted)) == {2, 5}
    labels = np.stack([np.bincount(label.ravel(), minlength=6) for label in batch.label])
    np.testing.assert_array_equal(np.asarray(result.confusion).sum(2)[:, 1:], labels[:, 1:])
    assert not np.asarray(result.confusion)[:, 0].any()
    assert float(result.pixels) == (batch.label > 0).sum()
