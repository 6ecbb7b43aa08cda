"""ResNets against torchvision and timm, with random weights and statistics."""

import copy

import pytest
from flax import nnx
from oracles import randomise, timm, torchvision
from side_by_side import (
    assert_close,
    assert_equal_in_double_precision,
    bfloat16_errors,
    copy_weights,
    image_of,
    our_maps,
    their_maps,
)

from jaxcrop.models.draws import Draws
from jaxcrop.models.resnet import resnet18, resnet50

NAMES = [(r"downsample\.0", "downsample.conv"), (r"downsample\.1", "downsample.bn")]


def _torchvision_maps(reference):
    def forward(x):
        x = reference.relu(reference.bn1(reference.conv1(x)))
        maps = [x]
        x = reference.maxpool(x)
        for stage in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
            x = stage(x)
            maps.append(x)
        return [x.permute(0, 2, 3, 1) for x in maps]

    return forward


@pytest.fixture(scope="module")
def reference():
    return randomise(torchvision().models.resnet18(), seed=0)


@pytest.fixture(scope="module")
def model(reference):
    abstract = nnx.eval_shape(lambda: resnet18(3, rngs=Draws(None)))
    return copy_weights(reference, abstract, NAMES, dropped=r"fc\.")


@pytest.mark.parametrize("size", [(224, 224), (256, 64)])
def test_maps_equal_torchvision(model, reference, size):
    image = image_of(*size)
    assert_close(our_maps(model, image), their_maps(_torchvision_maps(reference), image), 1e-4)


@pytest.mark.usefixtures("backend")
def test_gradient_equals_torchvision(model, reference):
    """At 32 x 96 pixels, the last map of which has odd sides.

    In double precision: a value that rounding lifts over a ReLU's zero changes the gradient.
    """
    forward = _torchvision_maps(copy.deepcopy(reference).double())
    assert_equal_in_double_precision(model, forward, image_of(32, 96))


def test_bottlenecks_equal_timm():
    reference = timm().create_model("resnet50", features_only=True)
    randomise(reference, seed=1)
    abstract = nnx.eval_shape(lambda: resnet50(3, rngs=Draws(None)))
    model = copy_weights(reference, abstract, NAMES)
    image = image_of(96, 64)
    want = their_maps(lambda x: [y.permute(0, 2, 3, 1) for y in reference(x)], image)
    assert_close(our_maps(model, image), want, 1e-4)


def test_bfloat16_is_near_float32(model, reference):
    image = image_of(96, 64)
    want = their_maps(_torchvision_maps(reference), image)
    assert max(bfloat16_errors(model, image, want)) < 2e-2
