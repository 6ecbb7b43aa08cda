"""Vision transformers against timm, with random weights, position embeddings and layer scales."""

from functools import partial

import pytest
from flax import nnx
from oracles import randomise, timm
from side_by_side import (
    assert_close,
    bfloat16_errors,
    copy_weights,
    image_of,
    our_maps,
    our_maps_and_gradient,
    their_maps,
    their_maps_and_gradient,
)

from jaxcrop.models.draws import Draws
from jaxcrop.models.vit import VisionTransformer, vit_s16

torch = pytest.importorskip("torch")

SMALL = {"embed_dim": 64, "depth": 4, "num_heads": 2}


def _reference(name, **arguments):
    reference = timm().create_model(
        name, img_size=224, dynamic_img_size=True, num_classes=0, **arguments
    )
    randomise(reference, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for path, parameter in reference.named_parameters():
            if path in ("cls_token", "pos_embed") or path.endswith("gamma"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return reference


def _timm_maps(reference):
    """Three quarters' raw outputs, and the normalised patch tokens of `forward_features`."""
    depth = len(reference.blocks)
    indices = [depth * quarter // 4 - 1 for quarter in (1, 2, 3)]

    def forward(x):
        maps = reference.forward_intermediates(x, indices=indices, intermediates_only=True)
        last = reference.forward_features(x)[:, 1:]
        b, c, h, w = maps[0].shape
        return [*(y.permute(0, 2, 3, 1) for y in maps), last.reshape(b, h, w, c)]

    return forward


def _ours(reference, make):
    names = [(r"patch_embed\.proj", "patch_embed")]
    return copy_weights(reference, nnx.eval_shape(lambda: make(3, rngs=Draws(None))), names)


@pytest.fixture(scope="module")
def reference():
    return _reference("vit_small_patch16_224", **SMALL)


@pytest.fixture(scope="module")
def model(reference):
    return _ours(reference, partial(VisionTransformer, 16, 64, 4, 2))


def test_vit_s16_equals_timm():
    """At the trained size and in bfloat16 elsewhere."""
    reference = _reference("vit_small_patch16_224")
    model = _ours(reference, vit_s16)
    forward = _timm_maps(reference)
    image = image_of(224, 224)
    assert_close(our_maps(model, image), their_maps(forward, image), 1e-4)
    image = image_of(112, 96)
    assert max(bfloat16_errors(model, image, their_maps(forward, image))) < 2e-2


@pytest.mark.parametrize("size", [(256, 256), (320, 64)])
def test_position_embedding_is_resized_as_by_timm(model, reference, size):
    """To a larger grid, and to one larger on one axis and smaller on the other."""
    image = image_of(*size)
    assert_close(our_maps(model, image), their_maps(_timm_maps(reference), image), 1e-4)


def test_gradient_equals_timm(model, reference):
    image = image_of(240, 112)
    maps, gradient = our_maps_and_gradient(model, image)
    want_maps, want = their_maps_and_gradient(_timm_maps(reference), image)
    assert_close(maps, want_maps, 1e-4)
    assert_close([gradient], [want], 1e-3)


@pytest.mark.parametrize("size", [(224, 224), (210, 70)])
def test_layer_scale_equals_timm(size):
    reference = _reference("vit_small_patch14_dinov2", **SMALL)
    model = _ours(reference, partial(VisionTransformer, 14, 64, 4, 2, layer_scale=True))
    image = image_of(*size)
    assert_close(our_maps(model, image), their_maps(_timm_maps(reference), image), 1e-4)
