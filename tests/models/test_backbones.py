import jax
import pytest
from flax import nnx

from jaxcrop.errors import InputError
from jaxcrop.models.backbones import BACKBONES, create_backbone
from jaxcrop.models.draws import Draws


def _abstract(architecture, in_channels):
    return nnx.eval_shape(lambda: create_backbone(architecture, in_channels, rngs=Draws(None)))


@pytest.mark.parametrize(
    ("architecture", "in_channels", "parameters"),
    [  # weights_spec 6, features only; else timm's models of 224 pixels without head
        ("resnet18", 13, 11_207_872),
        ("resnet50", 9, 23_526_848),
        ("resnet152", 3, 58_143_808),
        ("vit-s16", 13, 22_648_704),
        ("vit-b16", 3, 85_798_656),
        ("vit-l16", 3, 303_301_632),
        ("vit-h14", 3, 630_764_800),
        ("vit-s14", 3, 21_628_800),
        ("vit-b14", 3, 85_724_928),
        ("swin-v2-t", 9, 27_590_250),
        ("swin-v2-b", 9, 86_916_088),
    ],
)
def test_number_of_parameters(architecture, in_channels, parameters):
    backbone = _abstract(architecture, in_channels)
    counted = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(backbone, nnx.Param)))
    assert counted == parameters


def test_every_backbone_is_counted_above():
    marks = test_number_of_parameters.pytestmark
    assert {row[0] for row in marks[0].args[1]} == set(BACKBONES)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50", "vit-s14", "swin-v2-t"])
def test_maps_are_as_stated(architecture):
    backbone = _abstract(architecture, 3)
    backbone.eval()
    definition, state = nnx.split(backbone)
    image = jax.ShapeDtypeStruct((1, 224, 448, 3), "bfloat16")
    maps = jax.eval_shape(lambda state, image: nnx.merge(definition, state)(image), state, image)
    assert [(x.shape, x.dtype) for x in maps] == [
        ((1, 224 // stride, 448 // stride, channels), "bfloat16")
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]


@pytest.mark.parametrize(
    ("architecture", "multiple"), [("resnet18", 32), ("vit-s14", 14), ("swin-v2-t", 4)]
)
def test_an_unsuitable_size_is_refused(architecture, multiple):
    backbone = _abstract(architecture, 3)
    image = jax.ShapeDtypeStruct((1, multiple, multiple + 1, 3), "float32")
    with pytest.raises(ValueError, match=f"multiples of {multiple}"):
        nnx.eval_shape(backbone, image)


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="unknown backbone 'resnet34': choose one of resnet18,"):
        create_backbone("resnet34", 3, rngs=Draws(0))
