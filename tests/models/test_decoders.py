"""Every decoder over every backbone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from made_up import fill, training_task

from jaxcrop.models import segmenter
from jaxcrop.models.backbones import BACKBONES, create_backbone
from jaxcrop.models.decoders import DECODERS
from jaxcrop.models.draws import Draws
from jaxcrop.models.pyramid import PlainPyramid
from jaxcrop.models.segmenter import abstract_segmenter
from jaxcrop.training.step import loss_and_gradient


class Known(nnx.Module):
    """In place of a backbone: the maps that it was found to give, at no cost.

    Else every decoder would need the backbone traced and compiled again.
    """

    def __init__(self, backbone, maps):
        self.channels, self.strides = backbone.channels, backbone.strides
        self.maps = nnx.List(nnx.Variable(x) for x in maps)

    def __call__(self, image):
        return tuple(x[...] for x in self.maps)


def _abstract_backbone(architecture):
    backbone = nnx.eval_shape(lambda: create_backbone(architecture, 4, rngs=Draws(None)))
    backbone.eval()
    return backbone


def _shapes(model, image):
    """What the model makes of an image, in shapes."""
    definition, state = nnx.split(model)
    return jax.eval_shape(lambda state, x: nnx.merge(definition, state)(x), state, image)


@pytest.mark.parametrize("architecture", BACKBONES)
def test_every_decoder_takes_the_maps_of_every_backbone(architecture, monkeypatch):
    backbone = _abstract_backbone(architecture)
    side = 2 * backbone.strides[-1]
    image = jax.ShapeDtypeStruct((2, side, 2 * side, 4), jnp.float32)
    maps = _shapes(backbone, image)
    assert [x.shape for x in maps] == [
        (2, side // stride, 2 * side // stride, channels)
        for stride, channels in zip(backbone.strides, backbone.channels, strict=True)
    ]
    monkeypatch.setattr(
        segmenter,
        "create_backbone",
        lambda *_, **__: Known(backbone, [jnp.zeros(x.shape) for x in maps]),
    )
    for decoder in DECODERS:
        logits = _shapes(abstract_segmenter(architecture, decoder, 4, 6), image)
        assert logits.shape == (2, side, 2 * side, 6), decoder


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_decoder_computes_in_the_type_of_its_maps(decoder, dtype):
    def logits(maps):
        neck = PlainPyramid((8,) * 4, (16,) * 4, rngs=Draws(0))
        return DECODERS[decoder]((8,) * 4, 6, rngs=Draws(0))(neck(maps))

    with jax.enable_x64(True):
        assert (
            jax.eval_shape(logits, [jax.ShapeDtypeStruct((2, 2, 4, 8), dtype)] * 4).dtype == dtype
        )


@pytest.fixture(scope="module", params=["resnet18", "vit-s16", "swin-v2-t"])
def known(request):
    """A backbone with random weights and its maps of random images of 64 pixels."""
    backbone = _abstract_backbone(request.param)
    fill(backbone)
    image = np.random.default_rng(0).random((3, 64, 64, 4), dtype=np.float32)
    definition, state = nnx.split(backbone)
    maps = jax.jit(lambda state: nnx.merge(definition, state)(image))(state)
    return Known(backbone, maps)


@pytest.mark.parametrize("decoder", DECODERS)
def test_training_reaches_every_parameter(decoder, known, monkeypatch):
    """The gradient of neck and decoder is finite, and zero only in what the logits do not need."""
    maps = [x[...] for x in known.maps]
    monkeypatch.setattr(segmenter, "create_backbone", lambda *_, **__: Known(known, maps))
    model = abstract_segmenter("known", decoder, 4, 6)
    model.backbone = known
    fill(model)
    image = np.zeros((3, 64, 64, 4), np.float32)
    label = np.random.default_rng(1).integers(1, 6, (3, 64, 64)).astype(np.uint8)
    task, params, rest = training_task(model, tune="frozen")
    rest |= {f"backbone.maps.{number}": x for number, x in enumerate(maps)}
    program = jax.jit(lambda params, rest: loss_and_gradient(task, params, rest, image, label))
    loss, gradient, _ = jax.device_get(program(params, rest))
    assert 0 < loss < 10
    assert {name.partition(".")[0] for name in gradient} == {"decoder"} | (
        {"neck"} if model.neck else set()
    )
    assert all(np.isfinite(value).all() for value in gradient.values())
    silent = {name for name, value in gradient.items() if not np.any(value)}
    unused = {f"decoder.fpn.layer.{i}.{leaf}" for i in (1, 2, 3) for leaf in ("kernel", "bias")}
    assert silent == (unused if decoder == "fpn" else set())
