"""The paper's segmenter against segmentation_models_pytorch, through our own conversion."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from oracles import randomise, torchvision

from jaxcrop.models.segmenter import resnet50_unet
from jaxcrop.training.losses import cross_entropy
from jaxcrop.training.optimizer import adamw
from jaxcrop.training.step import loss_and_gradient, split_model
from jaxcrop.weights import load_weights
from weights_convert.convert import convert
from weights_convert.names import LAYOUTS, Recognised, model_tensors

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def reference():
    """The U-Net of smp with random weights and statistics, in evaluation mode."""
    torchvision()
    smp = pytest.importorskip("segmentation_models_pytorch")
    return randomise(smp.Unet("resnet50", encoder_weights=None, in_channels=13, classes=6), seed=0)


@pytest.fixture(scope="module")
def converted(reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    torch.save(reference.state_dict(), folder / "unet.pth")
    manifest = convert(folder / "unet.pth", folder / "out", family="ssl4eo")
    assert manifest["architecture"] == "resnet50-unet"
    return folder / "out"


@pytest.fixture
def model(converted):
    model = nnx.eval_shape(lambda: resnet50_unet(13, 6, rngs=nnx.Rngs(0)))
    load_weights(model, converted)
    return model


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    image = rng.random((2, 256, 256, 13), dtype=np.float32)
    return image, rng.integers(0, 6, (2, 256, 256)).astype(np.uint8)


def _nchw(image):
    return torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))


def _in_our_names(tensors):
    """Torch tensors of smp's names as arrays under our paths and axes."""
    layout = next(layout for layout in LAYOUTS if layout.name == "smp-unet-resnet50")
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    ours, _ = model_tensors(arrays, Recognised(layout, "", 13, None), "reference")
    return ours


def _by_path(*states):
    return {
        ".".join(map(str, path)): np.asarray(variable[...])
        for state in states
        for path, variable in nnx.to_flat_state(state)
    }


def _assert_close(got, want, tolerance):
    """Equal to `tolerance` relative to the largest value, for every array of two tables."""
    assert set(got) == set(want)
    errors = {
        name: np.abs(got[name] - want[name]).max() / np.abs(want[name]).max() for name in want
    }
    worst = max(errors, key=errors.get)
    assert errors[worst] < tolerance, f"{worst}: {errors[worst]:.1e}"


def test_inference_equals_smp(model, reference, batch):
    image, _ = batch
    model.eval()
    definition, state = nnx.split(model)
    got = jax.jit(lambda state, x: nnx.merge(definition, state)(x))(state, image)
    with torch.no_grad():
        want = reference.eval()(_nchw(image)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


def test_training_mode_equals_smp(model, reference, batch):
    """Logits by batch statistics, the loss, and the running averages that the batch moved."""
    image, label = batch
    reference = copy.deepcopy(reference).train()
    with torch.no_grad():
        want = reference(_nchw(image))
        loss = torch.nn.CrossEntropyLoss(ignore_index=0)(want, torch.from_numpy(label).long())
    definition, trained, rest = split_model(model, freeze=False)

    @jax.jit
    def forward(trained, rest, image):
        module = nnx.merge(definition, trained, rest)
        return module(image), nnx.state(module, nnx.BatchStat)

    got, moved = forward(trained, rest, image)
    want = want.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
    np.testing.assert_allclose(cross_entropy(got, label), loss.item(), rtol=1e-5)
    expected = _in_our_names(reference.state_dict())
    statistics = {name: array for name, array in expected.items() if name.endswith(("mean", "var"))}
    _assert_close(_by_path(moved), statistics, 1e-4)


@pytest.fixture
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("double_precision")
def test_one_adamw_step_equals_smp(model, reference, batch):
    """The loss, every gradient, and every parameter after one step, to rounding.

    In double precision: through 50 layers of batch statistics, float32 leaves PyTorch's own
    gradients 20 % off those in double precision, and AdamW's first step is the gradient's sign.
    """
    image, label = batch[0][:, :64, :64].astype(np.float64), batch[1][:, :64, :64]
    reference = copy.deepcopy(reference).double().train()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-3)
    logits = reference(_nchw(image))
    loss = torch.nn.CrossEntropyLoss(ignore_index=0)(logits, torch.from_numpy(label).long())
    loss.backward()
    gradients = _in_our_names({name: p.grad for name, p in reference.named_parameters()})
    optimizer.step()
    expected = _in_our_names(reference.state_dict())

    definition, trained, rest = split_model(model, freeze=False)
    trained, rest = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (trained, rest))
    ours = adamw(1e-3, 0.01)

    @jax.jit
    def step(trained, rest):
        loss, gradient, rest = loss_and_gradient(definition, trained, rest, image, label)
        updates, _ = ours.update(gradient, ours.init(trained), trained)
        return loss, gradient, optax.apply_updates(trained, updates), rest

    got_loss, got_gradient, updated, rest = step(trained, rest)
    np.testing.assert_allclose(got_loss, loss.item(), rtol=1e-9)
    _assert_close(_by_path(got_gradient), gradients, 1e-6)
    _assert_close(_by_path(updated, rest), expected, 1e-6)
