"""Whole segmenters: the paper's two against the originals, images in time, of any size and type."""

import copy
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from made_up import fill, nchw, nhwc, training_task, untransposed
from oracles import randomise, torchvision

from jaxcrop.config import OptimizerConfig
from jaxcrop.errors import InputError
from jaxcrop.models.backbones import BACKBONES
from jaxcrop.models.decoders import DECODERS
from jaxcrop.models.draws import Draws
from jaxcrop.models.linear import LinearHead
from jaxcrop.models.pyramid import resize
from jaxcrop.models.segmenter import Segmenter, abstract_segmenter
from jaxcrop.training.network import values_of
from jaxcrop.training.optimizer import adamw
from jaxcrop.training.step import loss_and_gradient

torch = pytest.importorskip("torch")

from side_by_side import assert_close, copy_weights, our_maps  # noqa: E402

UNET_NAMES = [
    (r"^encoder\.", "backbone."),
    (r"downsample\.0\.", "downsample.conv."),
    (r"downsample\.1\.", "downsample.bn."),
    (r"^(decoder.*conv\d)\.0\.", r"\1.conv."),
    (r"^(decoder.*conv\d)\.1\.", r"\1.bn."),
    (r"^segmentation_head\.0\.", "decoder.head."),
]
SWIN = r"^backbone\.backbone\.backbone\."
SATLAS_NAMES = [
    (SWIN + r"features\.0\.0\.", "backbone.patch_embed."),
    (SWIN + r"features\.0\.2\.", "backbone.patch_norm."),
    (SWIN + r"features\.([1357])\.", lambda at: f"backbone.stages.{int(at[1]) // 2}."),
    (SWIN + r"features\.([246])\.", lambda at: f"backbone.merges.{int(at[1]) // 2 - 1}."),
    (r"mlp\.0\.", "mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
    (r"cpb_mlp\.2\.", "cpb_mlp.fc2."),
    (r"^fpn\.fpn\.(inner|layer)_blocks\.(\d)\.0\.", r"decoder.fpn.\1.\2."),
    (r"^upsample\.layers\.(\d)\.0\.", r"decoder.upsample.\1.conv."),
    (r"^upsample\.layers\.(\d)\.2\.", r"decoder.upsample.\1.transpose."),
    (r"^head\.layers\.0\.0\.", "decoder.head.0."),
    (r"^head\.layers\.1\.", "decoder.head.1."),
]
SATLAS_DROPPED = r".*relative_|" + SWIN + r"(norm|head)\."


@pytest.fixture(scope="module")
def reference():
    """The U-Net of smp with random weights and statistics, in evaluation mode."""
    torchvision()
    smp = pytest.importorskip("segmentation_models_pytorch")
    return randomise(smp.Unet("resnet50", encoder_weights=None, in_channels=13, classes=6), seed=0)


def _ours(tensors) -> Segmenter:
    """Our model of torch tensors under smp's names."""
    holder = SimpleNamespace(state_dict=lambda: tensors)
    return copy_weights(holder, abstract_segmenter("resnet50", "unet", 13, 6), UNET_NAMES)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    image = rng.random((2, 256, 256, 13), dtype=np.float32)
    return image, rng.integers(0, 6, (2, 256, 256)).astype(np.uint8)


def _assert_all_close(got, want, tolerance):
    """Equal to `tolerance` relative to the largest value, for every array of two tables."""
    assert set(got) == set(want)
    got, want = jax.device_get((got, want))
    errors = {
        name: np.abs(got[name] - want[name]).max() / np.abs(want[name]).max() for name in want
    }
    worst = max(errors, key=errors.get)
    assert errors[worst] < tolerance, f"{worst}: {errors[worst]:.1e}"


def test_inference_equals_smp(reference, batch):
    image, _ = batch
    got = our_maps(_ours(reference.state_dict()), image)
    with torch.no_grad():
        want = reference.eval()(nchw(image))
    assert_close(got, nhwc(want), 1e-4)


def test_training_mode_equals_smp(reference, batch):
    """Logits by batch statistics, the loss, and the running averages that the batch moved."""
    image, label = batch
    model = _ours(reference.state_dict())
    reference = copy.deepcopy(reference).train()
    with torch.no_grad():
        want = reference(nchw(image))
        loss = torch.nn.CrossEntropyLoss(ignore_index=0)(want, torch.from_numpy(label).long())
    task, params, rest = training_task(model, tune="full")
    got, moved = jax.jit(task.logits)(params | rest, image)
    assert_close(np.asarray(got), nhwc(want), 1e-4)
    np.testing.assert_allclose(task.loss(got, label), loss.item(), rtol=1e-5)
    expected = values_of(_ours(reference.state_dict()))
    _assert_all_close(moved, {name: expected[name] for name in moved}, 1e-4)


@pytest.fixture
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("double_precision")
def test_one_adamw_step_equals_smp(reference, batch):
    """The loss, every gradient, and every parameter after one step, to rounding.

    In double precision: through 50 layers of batch statistics, float32 leaves PyTorch's own
    gradients 20 % off those in double precision, and AdamW's first step is the gradient's sign.
    """
    image, label = batch[0][:, :64, :64].astype(np.float64), batch[1][:, :64, :64]
    reference = copy.deepcopy(reference).double().train()
    model = _ours(reference.state_dict())
    task, params, rest = training_task(model, tune="full", dtype="float64")
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-3)
    logits = reference(nchw(image))
    loss = torch.nn.CrossEntropyLoss(ignore_index=0)(logits, torch.from_numpy(label).long())
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in reference.named_parameters()}
    gradients = values_of(_ours(reference.state_dict() | gradients))
    optimizer.step()
    expected = values_of(_ours(reference.state_dict()))

    ours = adamw(OptimizerConfig(), dict.fromkeys(params, 1.0))

    @jax.jit
    def step(params, rest):
        loss, gradient, moved = loss_and_gradient(task, params, rest, image, label)
        updates, _ = ours.update(gradient, ours.init(params), params)
        return loss, gradient, optax.apply_updates(params, updates), moved

    got_loss, got_gradient, updated, moved = step(params, rest)
    np.testing.assert_allclose(got_loss, loss.item(), rtol=1e-9)
    _assert_all_close(got_gradient, {name: gradients[name] for name in params}, 1e-6)
    _assert_all_close(updated | moved, expected, 1e-6)


def _compiled(model):
    definition, state = nnx.split(model)
    run = jax.jit(lambda state, *inputs: nnx.merge(definition, state)(*inputs))
    return lambda *inputs: run(state, *inputs)


def test_images_in_time_equal_satlaspretrain_models():
    """Its multi-image Swin with pyramid and head, which skips images that are not there."""
    torchvision()
    satlas = pytest.importorskip("satlaspretrain_models")
    reference = satlas.Model(
        3, True, satlas.Backbone.SWINT, fpn=True, head=satlas.Head.SEGMENT, num_categories=6
    )
    randomise(reference, seed=0)
    model = copy_weights(
        untransposed(reference),
        abstract_segmenter("swin-v2-t", "fpn", 3, 6),
        SATLAS_NAMES,
        SATLAS_DROPPED,
    )
    images = np.random.default_rng(0).random((3, 3, 64, 96, 3), dtype=np.float32)
    present = np.array([[True, True, True], [True, False, True], [False, True, False]])

    def logits(images):
        stacked = torch.cat([nchw(image[None]) for image in images], dim=1)
        with torch.no_grad():
            features = reference.upsample(reference.fpn(reference.backbone(stacked)))
            return nhwc(reference.head.layers(features[0]))[0]

    want = [logits(image[here]) for image, here in zip(images, present, strict=True)]
    assert_close(np.asarray(_compiled(model)(images, present)), want, 1e-4)


def test_a_resnet_takes_the_maximum_over_time_too():
    """By hand: the maximum of the maps of single images, then the decoder."""
    model = abstract_segmenter("resnet18", "linear", 4, 6)
    fill(model)
    model.eval()
    images = np.random.default_rng(0).random((2, 3, 32, 64, 4), dtype=np.float32)
    present = np.array([[True, True, True], [False, True, True]])
    maps = our_maps(model.backbone, images.reshape(6, 32, 64, 4))
    highest = [np.stack([x[:3].max(0), x[4:].max(0)]) for x in maps]
    want = resize(model.decoder(highest), (32, 64))
    assert_close(np.asarray(_compiled(model)(images, present)), np.asarray(want), 1e-5)


class Pooled(nnx.Module):
    """A backbone that only averages: strides 2 and 4."""

    channels, strides = (3, 3), (2, 4)

    def __call__(self, image):
        return tuple(nnx.avg_pool(image, (k, k), (k, k)) for k in self.strides)


@pytest.fixture
def simple():
    model = Segmenter(Pooled(), None, LinearHead((3, 3), 6, rngs=Draws(0)))
    fill(model)
    return model


@pytest.mark.parametrize("size", [(8, 12), (9, 12), (7, 2), (1, 1)])
def test_an_image_of_any_size_is_padded_and_its_logits_resized(simple, size):
    """The values of the edge go on to the right and below; logits are resized bilinearly."""
    image = np.random.default_rng(0).random((2, *size, 3), dtype=np.float32)
    rows, columns = (np.minimum(np.arange(-(-side // 4) * 4), side - 1) for side in size)
    padded = image[:, rows][:, :, columns]
    small = nchw(np.asarray(simple.decoder(simple.backbone(padded))))
    want = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
    got = simple(image)
    assert got.shape == (2, *size, 6)
    assert_close(np.asarray(got), nhwc(want)[:, : size[0], : size[1]], 1e-5)


def test_images_in_time_are_all_present_unless_told_otherwise(simple):
    images = np.random.default_rng(0).random((2, 3, 7, 9, 3), dtype=np.float32)
    np.testing.assert_array_equal(simple(images), simple(images, jnp.ones((2, 3), bool)))
    np.testing.assert_array_equal(simple(images[:, :1]), simple(images[:, 0]))


def test_logits_are_of_four_bytes_at_least(simple):
    image = np.random.default_rng(0).random((2, 8, 12, 3))
    want = simple(jnp.asarray(image, jnp.float32))
    got = simple(jnp.asarray(image, jnp.bfloat16))
    assert got.dtype == want.dtype == jnp.float32
    assert_close(np.asarray(got), np.asarray(want), 2e-2)
    with jax.enable_x64(True):
        got = simple(jnp.asarray(image, jnp.float64))
    assert got.dtype == jnp.float64
    assert_close(np.asarray(got), np.asarray(want), 1e-6)


@pytest.mark.parametrize("architecture", BACKBONES)
def test_values_begin_with_the_types_that_a_step_leaves(architecture):
    """A weak type (of `jnp.full(n, 1.0)`) would have the second step compiled anew, and the third.

    A trained value never has one.
    """
    for decoder in DECODERS:
        values = nnx.state(abstract_segmenter(architecture, decoder, 13, 6))
        for path, value in nnx.to_flat_state(values):
            kept = value.get_value()
            assert (kept.dtype, kept.weak_type) == (jnp.float32, False), path


def test_unknown_names_are_refused_with_those_there_are():
    with pytest.raises(InputError, match="unknown decoder 'net': choose one of unet, fpn, upernet"):
        abstract_segmenter("resnet50", "net", 3, 6)
    with pytest.raises(InputError, match="unknown backbone 'net': choose one of resnet18"):
        abstract_segmenter("net", "unet", 3, 6)
