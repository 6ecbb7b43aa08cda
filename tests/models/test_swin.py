"""Swin v2 against torchvision, with random weights, logit scales and biases of the keys."""

import copy
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import randomise, torchvision
from side_by_side import (
    assert_close,
    assert_equal_in_double_precision,
    bfloat16_errors,
    copy_weights,
    image_of,
    nchw,
    our_maps,
    relative_errors,
    their_maps,
)

from jaxcrop.models.draws import Draws
from jaxcrop.models.swin import (
    SwinTransformerV2,
    at_length,
    relative_coords_table,
    relative_position_index,
    swin_v2_t,
)

torch = pytest.importorskip("torch")

NAMES = [
    (r"^features\.0\.0\.", "patch_embed."),
    (r"^features\.0\.2\.", "patch_norm."),
    (r"^features\.([1357])\.", lambda found: f"stages.{int(found[1]) // 2}."),
    (r"^features\.([246])\.", lambda found: f"merges.{int(found[1]) // 2 - 1}."),
    (r"mlp\.0\.", "mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
    (r"cpb_mlp\.2\.", "cpb_mlp.fc2."),
]
BUFFERS_AND_CLASSIFIER = r".*relative_|norm\.|head\."


def _randomised(reference):
    """Logit scales from e^1 to e^3.5: sharper softmaxes make float32 itself inexact."""
    randomise(reference, seed=0)
    for attention in _attentions(reference):
        scales = torch.linspace(1, 3.5, attention.num_heads)
        attention.logit_scale.data = scales.reshape(-1, 1, 1)
        assert attention.qkv.bias.chunk(3)[1].std() > 0.05
    return reference


def _attentions(reference):
    return [module for module in reference.modules() if hasattr(module, "logit_scale")]


def _ours(reference, make):
    abstract = nnx.eval_shape(lambda: make(3, rngs=Draws(None)))
    return copy_weights(reference, abstract, NAMES, BUFFERS_AND_CLASSIFIER)


def _torchvision_maps(reference):
    def forward(x):
        maps = []
        for i, layer in enumerate(reference.features):
            x = layer(x)
            if i % 2:
                maps.append(x)
        return maps

    return forward


small = partial(SwinTransformerV2, 32, (2, 1, 1, 1), (2, 2, 4, 8))


@pytest.fixture(scope="module")
def reference():
    """Torchvision's Swin v2 with fewer and narrower blocks than its named ones have."""
    swin = torchvision().models.swin_transformer
    return _randomised(
        swin.SwinTransformer(
            patch_size=[4, 4],
            embed_dim=32,
            depths=[2, 1, 1, 1],
            num_heads=[2, 2, 4, 8],
            window_size=[8, 8],
            block=swin.SwinTransformerBlockV2,
            downsample_layer=swin.PatchMergingV2,
        )
    )


@pytest.fixture(scope="module")
def model(reference):
    return _ours(reference, small)


def test_constants_equal_torchvision(reference):
    attention = _attentions(reference)[0]
    np.testing.assert_allclose(relative_coords_table(), attention.relative_coords_table, rtol=1e-6)
    np.testing.assert_array_equal(relative_position_index(), attention.relative_position_index)
    assert relative_coords_table().max() == pytest.approx(1.05664, abs=1e-5)


def test_swin_v2_t_equals_torchvision():
    """At 256 pixels, whose last map is one window and not shifted."""
    reference = _randomised(torchvision().models.swin_v2_t())
    image = image_of(256, 256)
    got = our_maps(_ours(reference, swin_v2_t), image)
    assert_close(got, their_maps(_torchvision_maps(reference), image), 1e-4)


def test_maps_equal_torchvision(model, reference):
    """At 224 pixels, whose maps of 28, 14 and 7 are padded to whole windows."""
    image = image_of(224, 224)
    assert_close(our_maps(model, image), their_maps(_torchvision_maps(reference), image), 1e-4)


@pytest.mark.parametrize("size", [(104, 40), (32, 160)])
def test_gradient_equals_torchvision(reference, size):
    """To rounding: with odd maps, padded to windows and to merge, or shifts along one axis only.

    One head of each block has a logit scale above the bound of 100.
    """
    reference = copy.deepcopy(reference)
    for attention in _attentions(reference):
        attention.logit_scale.data[-1] = 5.0
    model = _ours(reference, small)
    forward = _torchvision_maps(reference.double())
    assert_equal_in_double_precision(model, forward, image_of(*size))


def test_vectors_are_put_at_a_length_as_in_pytorch():
    """Long ones, one of zeros, and one shorter than what PyTorch divides by at least."""
    rng = np.random.default_rng(0)
    x, slope = rng.normal(size=(2, 4, 3, 5, 8))
    x[0, 0, 0], x[0, 0, 1], x[0, 0, 2] = 0, 1e-13, 1e4 * x[0, 0, 2]
    length = np.array([0.5, 1, 100]).reshape(3, 1, 1)
    theirs = [torch.tensor(array, requires_grad=True) for array in (x, length)]
    want = torch.nn.functional.normalize(theirs[0], dim=-1) * theirs[1]
    want.backward(torch.tensor(slope))
    found, pull = jax.vjp(at_length, *(jnp.asarray(a, jnp.float32) for a in (x, length)))
    np.testing.assert_allclose(found, want.detach(), rtol=1e-5, atol=1e-7)
    for gradient, right in zip(pull(jnp.asarray(slope, jnp.float32)), theirs, strict=True):
        np.testing.assert_allclose(gradient, right.grad, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_near_float32(reference):
    """Nearer than PyTorch's own bfloat16, with the logit scales of fresh models, 10."""
    reference = copy.deepcopy(reference)
    for attention in _attentions(reference):
        attention.logit_scale.data.fill_(np.log(10))
    image = image_of(104, 64)
    want = their_maps(_torchvision_maps(reference), image)
    errors = bfloat16_errors(_ours(reference, small), image, want)
    with torch.no_grad():
        maps = _torchvision_maps(reference.bfloat16())(nchw(image).bfloat16())
    assert max(errors) < 3e-2
    assert (errors < relative_errors([x.float().numpy() for x in maps], want)).all()
