"""The compiled steps on a small network: sharding, freezing, statistics, restricted classes."""

import dataclasses
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh

import jaxcrop.mesh as mesh_module
from jaxcrop import compiling
from jaxcrop.config import LossConfig, OptimizerConfig, TuningConfig
from jaxcrop.data.bands import BandInput
from jaxcrop.data.reading import Batch
from jaxcrop.mesh import data_mesh, placement, put_batch, put_everywhere
from jaxcrop.models.draws import Draws
from jaxcrop.models.layers import BatchNorm, Conv
from jaxcrop.models.primitives import widened
from jaxcrop.models.segmenter import abstract_segmenter
from jaxcrop.training.losses import make_loss
from jaxcrop.training.network import Network, values_of
from jaxcrop.training.optimizer import adamw
from jaxcrop.training.step import (
    AT_ONCE,
    Task,
    batch_gradient,
    begun,
    make_cached_steps,
    make_eval_step,
    make_few_steps,
    make_statistics_step,
    make_train_step,
    make_update,
    training_network,
)

BANDS = BandInput(("B04", "B08"), (0.0, 0.0), (3000.0, 5000.0), clip=False)


class Tiny(nnx.Module):
    """Two convolutions with batch normalisation: a backbone, and a decoder to the logits."""

    def __init__(self, *, rngs: Draws):
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
    label = rng.integers(0, 6, (size, 16, 16)).astype(np.uint8)
    return Batch(image, label, np.arange(size, dtype=np.uint32))


def _begin(mesh, tune="full", dtype="float32", *, ema=None, spread=False, **settings):
    """A task, its optimiser and the state it begins in; `settings` are of the optimiser."""
    model = Tiny(rngs=Draws(0))
    network = training_network(model, TuningConfig(tune=tune))
    values = values_of(model)
    parameters = network.names(nnx.Param)
    params = {n: values[n] for n in parameters if tune == "full" or n.startswith("decoder.")}
    optimizer = adamw(OptimizerConfig(**settings), dict.fromkeys(params, 1.0), pack=not spread)
    statistics = {n: values[n] for n in network.moving}
    frozen = {n: v for n, v in values.items() if n not in params | statistics}
    state = begun(params, statistics, optimizer, patience=1, ema=ema)
    state = dataclasses.replace(state, frozen=frozen)
    state = jax.device_put(state, placement(state, mesh, spread=spread))
    loss = make_loss(LossConfig(), np.ones(6, int))
    return Task(network, BANDS, dtype, loss, mesh), optimizer, state


def _placed(state):
    return jax.tree.map(lambda array: array.sharding, state)


def _train_step(task, optimizer, state, **how):
    return make_train_step(make_update(task, optimizer, **how), _placed(state), task.mesh)


def _put(batch, mesh):
    return put_batch(batch, mesh, len(batch.label))


def _one_device():
    return Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))


def _close(one, two, rtol=1e-4, atol=1e-6):
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=rtol, atol=atol, err_msg=name)


def _step(mesh, batch, *, steps=1, accumulate=1, ema=None, **settings):
    task, optimizer, state = _begin(mesh, ema=ema, **settings)
    step = _train_step(task, optimizer, state, accumulate=accumulate, ema=ema)
    for _ in range(steps):
        state, loss = step(state, _put(batch, mesh), jax.random.key(0))
    return state, float(loss)


@pytest.mark.parametrize("size", [4, 3])
def test_two_devices_compute_what_one_computes(size, monkeypatch):
    """Loss, gradient (AdamW's first moment) and statistics are those of the global batch.

    A batch that does not divide over them too.
    """
    # Compiled in haste, as other tests are, sums are further apart: by 1.1e-6 of the loss.
    monkeypatch.setitem(compiling._CPU, "xla_backend_optimization_level", 1)
    assert data_mesh().size == 2
    one, loss_1 = _step(_one_device(), _batch(0, size))
    two, loss_2 = _step(data_mesh(), _batch(0, size))
    np.testing.assert_allclose(loss_1, loss_2, rtol=1e-6)
    _close(one.optimizer[0][0].mu, two.optimizer[0][0].mu)
    _close(one.statistics, two.statistics)


EIGHT = """
import sys; sys.path += {path!r}
import jax, numpy as np
import test_step as t
from jaxcrop.mesh import data_mesh
assert data_mesh().size == 8
for spread in (False, True):
    one, loss_1 = t._step(t._one_device(), t._batch(0, 16), spread=spread)
    all, loss_8 = t._step(data_mesh(), t._batch(0, 16), spread=spread)
    np.testing.assert_allclose(loss_1, loss_8, rtol=1e-6)
    t._close(one.optimizer[0][0].mu, all.optimizer[0][0].mu)
    t._close(one.statistics, all.statistics)
"""


def test_eight_devices_compute_what_one_computes():
    """With a copy of the parameters on each, and with the parameters spread over them."""
    path = [str(folder) for folder in map(Path, sys.path) if folder.name == "tests"]
    code = EIGHT.format(path=[*path, str(Path(__file__).parent)])
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_spread_parameters_take_a_share_of_the_memory(monkeypatch):
    """Each of two devices holds half of every kernel, of AdamW's moments and of the average."""
    monkeypatch.setattr(mesh_module, "_SMALLEST_SPREAD", 16)
    whole, loss = _step(data_mesh(), _batch(0), ema=0.9)
    spread, same = _step(data_mesh(), _batch(0), ema=0.9, spread=True)
    np.testing.assert_allclose(loss, same, rtol=1e-6)
    for part in ("params", "average"):
        _close(getattr(whole, part), getattr(spread, part), rtol=1e-4)
    kernel = "backbone.layers.0.kernel"
    moments = optax.tree.get(spread.optimizer, "mu"), optax.tree.get(spread.optimizer, "nu")
    for tree in (spread.params, spread.average, *moments):
        shards = tree[kernel].addressable_shards
        assert [shard.data.size for shard in shards] == [tree[kernel].size // 2] * 2
        assert {shard.replica_id for shard in shards} == {0}


def test_a_batch_in_parts_has_the_gradient_of_the_whole():
    """Without statistics of the batch, the sums over labelled pixels agree; the crops too."""
    mesh = data_mesh()
    batch = _batch(0, 8)
    batch.label[:3] = 0  # parts differ in how many pixels are labelled
    results = []
    for parts in (1, 2, 4):
        task, _, state = _begin(mesh, tune="frozen")
        values = state.frozen | state.statistics
        network = dataclasses.replace(task, network=_in_eval_mode())
        keys = jax.random.split(jax.random.key(0), 8)
        results.append(
            jax.jit(partial(batch_gradient, network, parts=parts))(
                state.params, values, _put(batch, mesh), keys
            )
        )
    (loss, gradient, _), *others = results
    for other_loss, other, _ in others:
        np.testing.assert_allclose(other_loss, loss, rtol=1e-5)
        _close(gradient, other, rtol=1e-4, atol=1e-6)
    assert max(abs(slope).max() for slope in gradient.values()) > 1e-3


def _in_eval_mode():
    model = Tiny(rngs=Draws(0))
    model.eval()
    return Network.of(model)


def test_steps_on_cached_chips_equal_those_on_batches_sent():
    mesh = data_mesh()
    everything = _batch(0, 12)
    order = np.random.default_rng(1).integers(0, 12, (5, 4)).astype(np.int32)
    key = jax.random.key(3)
    task, optimizer, state = _begin(mesh)
    step = _train_step(task, optimizer, state)
    losses = []
    for chosen in order:
        batch = Batch(*(part[chosen] for part in everything))
        state, loss = step(state, _put(batch, mesh), key)
        losses.append(float(loss))
    task, optimizer, begun = _begin(mesh)
    steps = make_cached_steps(make_update(task, optimizer), _placed(begun), mesh)
    cached, got = steps(begun, put_everywhere(everything, mesh), put_everywhere(order, mesh), key)
    np.testing.assert_allclose(got, losses, rtol=1e-5)
    _close(state.optimizer[0][0].mu, cached.optimizer[0][0].mu, rtol=1e-3, atol=1e-5)
    assert int(cached.step) == 5


@pytest.mark.parametrize("count", [1, AT_ONCE - 1, AT_ONCE])
def test_a_few_steps_at_once_equal_one_after_the_other(count):
    mesh, key = data_mesh(), jax.random.key(3)
    batches = [_put(_batch(seed), mesh) for seed in range(AT_ONCE)]
    task, optimizer, state = _begin(mesh)
    step = _train_step(task, optimizer, state)
    losses = []
    for batch in batches[:count]:
        state, loss = step(state, batch, key)
        losses.append(float(loss))
    task, optimizer, begun = _begin(mesh)
    few_steps = make_few_steps(make_update(task, optimizer), _placed(begun), mesh)
    after, got = few_steps(begun, batches, count, key)
    np.testing.assert_allclose(got[:count], losses, rtol=1e-5)
    _close(state.optimizer[0][0].mu, after.optimizer[0][0].mu, rtol=1e-3, atol=1e-5)
    _close(state.statistics, after.statistics)
    assert int(after.step) == count


def test_the_average_follows_the_weights():
    """Against the recurrence of Polyak averaging with a decay that grows, written in numpy."""
    mesh = _one_device()
    begun = {name: np.asarray(v) for name, v in _begin(mesh)[2].params.items()}
    want = begun
    for steps in (1, 2, 3):
        state, _ = _step(mesh, _batch(0), steps=steps, ema=0.2)
        decay = min(0.2, steps / (9 + steps))
        want = {n: decay * v + (1 - decay) * np.asarray(state.params[n]) for n, v in want.items()}
    _close(want, state.average, rtol=1e-5)
    assert state.model["decoder.layers.0.kernel"] is state.average["decoder.layers.0.kernel"]


def test_a_clipped_gradient_has_the_norm_asked_for():
    """AdamW's first moment after a step is a tenth of the gradient."""
    free, _ = _step(_one_device(), _batch(0))
    norms = []
    for clip in (1e9, 1e-3):
        state, _ = _step(_one_device(), _batch(0), clip_norm=clip)
        norms.append(10 * optax.tree.norm(optax.tree.get(state.optimizer, "mu")))
    free = 10 * optax.tree.norm(optax.tree.get(free.optimizer, "mu"))
    np.testing.assert_allclose(norms[0], free, rtol=1e-4)
    np.testing.assert_allclose(norms[1], 1e-3, rtol=1e-3)


def test_in_bfloat16_only_the_network_is_narrow():
    """Nearly the loss and statistics of float32; all that is kept stays in float32."""
    mesh = _one_device()
    batch, results = _put(_batch(0), mesh), []
    for dtype in ("float32", "bfloat16"):
        task, optimizer, state = _begin(mesh, dtype=dtype)
        step = _train_step(task, optimizer, state)
        state, loss = step(state, batch, jax.random.key(0))
        rest = make_statistics_step(task)(state.model, batch, jnp.asarray(0))
        evaluate = make_eval_step(task.network, BANDS, dtype, range(1, 6), mesh)
        result, _ = evaluate(state.model | rest, batch)
        kept = state.params | rest
        assert {array.dtype for array in kept.values()} == {np.dtype("float32")}
        results.append((float(loss), float(result.loss_sum), rest))
    (loss, loss_sum, rest), (narrow_loss, narrow_sum, narrow_rest) = results
    assert 0 < abs(narrow_loss / loss - 1) < 0.01
    assert 0 < abs(narrow_sum / loss_sum - 1) < 0.01
    for name, value in rest.items():
        np.testing.assert_allclose(narrow_rest[name], value, rtol=0.05, atol=0.02, err_msg=name)


@pytest.mark.parametrize("tune", ["frozen", "full"])
def test_frozen_means_frozen(tune):
    mesh = _one_device()
    task, optimizer, state = _begin(mesh, tune)
    before = {name: np.asarray(value) for name, value in state.model.items()}
    step = _train_step(task, optimizer, state)
    for seed in range(2):
        batch = _put(_batch(seed), mesh)
        state, _ = step(state, batch, jax.random.key(0))
    after = state.model | make_statistics_step(task)(state.model, batch, jnp.asarray(0))
    assert before.keys() == after.keys()
    for name, value in before.items():
        frozen = tune == "frozen" and name.startswith("backbone")
        assert np.array_equal(value, after[name]) == frozen, name


@pytest.mark.parametrize("tune", ["frozen", "full"])
@pytest.mark.parametrize("how", ["keep", "update"])
def test_statistics_are_in_the_state_where_batches_move_them(tune, how):
    network = training_network(Tiny(rngs=Draws(0)), TuningConfig(tune=tune, frozen_batchnorm=how))
    layers = ["decoder.layers.1"]
    if tune == "full" or how == "update":
        layers.append("backbone.layers.1")
    assert set(network.moving) == {
        f"{layer}.{name}" for layer in layers for name in ("mean", "var")
    }
    assert network.evaluating().moving == ()


def test_the_papers_frozen_backbone_moves_its_statistics():
    model = Tiny(rngs=Draws(0))
    network = training_network(model, TuningConfig(frozen_batchnorm="update"))
    module = network.module(values_of(model))
    before = values_of(model)["backbone.layers.1.mean"]
    module(jnp.ones((1, 8, 8, 2)))
    assert not np.array_equal(before, values_of(module)["backbone.layers.1.mean"])


def test_statistics_are_the_mean_over_batches():
    """As torch's BatchNorm with momentum=None, its cumulative average, computes them."""
    torch = pytest.importorskip("torch")
    mesh = data_mesh()
    task, _, state = _begin(mesh)
    weights = {name: np.asarray(value) for name, value in state.params.items()}
    conv = torch.nn.Conv2d(2, 8, 3, padding=1, bias=False)
    kernel = weights["backbone.layers.0.kernel"].transpose(3, 2, 0, 1)
    conv.weight = torch.nn.Parameter(torch.from_numpy(kernel.copy()))
    norm = torch.nn.BatchNorm2d(8, momentum=None)
    step = make_statistics_step(task)
    got = {}
    for k in range(3):
        batch = _batch(k)
        got = step(state.model | got, _put(batch, mesh), jnp.asarray(k))
        image = batch.image / np.float32([3000, 5000])
        norm(conv(torch.from_numpy(image.astype(np.float32)).permute(0, 3, 1, 2)))
    np.testing.assert_allclose(got["backbone.layers.1.mean"], norm.running_mean, rtol=1e-4)
    np.testing.assert_allclose(got["backbone.layers.1.var"], norm.running_var, rtol=1e-4)


def test_equal_models_are_evaluated_by_one_program():
    """In whichever mode they are: as they train, as they are read again, recomputing or not."""

    def step(dtype="float32", **mode):
        model = abstract_segmenter("resnet18", "unet", 2, 6)
        model.set_attributes(**mode, raise_if_not_found=False)
        return make_eval_step(Network.of(model), BANDS, dtype, range(1, 6), _one_device())

    assert step() is step(use_running_average=True) is step(use_running_average=False, remat=True)
    assert step() is not step("bfloat16")


def test_only_classes_of_the_training_labels_are_predicted():
    mesh = data_mesh()
    task, _, state = _begin(mesh)
    batch = _batch(0)
    step = make_eval_step(task.network, BANDS, "float32", (2, 5), mesh)
    result, prediction = step(state.model, _put(batch, mesh))
    assert set(np.unique(prediction)) == {2, 5}
    predicted = np.asarray(result.confusion).sum((0, 1))
    assert set(np.flatnonzero(predicted)) == {2, 5}
    labels = np.stack([np.bincount(label.ravel(), minlength=6) for label in batch.label])
    np.testing.assert_array_equal(np.asarray(result.confusion).sum(2)[:, 1:], labels[:, 1:])
    assert not np.asarray(result.confusion)[:, 0].any()
    assert float(result.pixels) == (batch.label > 0).sum()
