import pytest
from flax import nnx
from made_up import nchw, nhwc, pyramid, untransposed
from oracles import randomise, torchvision

from jaxcrop.models.draws import Draws
from jaxcrop.models.fpn import FPN

torch = pytest.importorskip("torch")

from side_by_side import assert_close, copy_weights, our_maps  # noqa: E402

NAMES = [
    (r"^fpn\.fpn\.(inner|layer)_blocks\.(\d)\.0\.", r"fpn.\1.\2."),
    (r"^upsample\.layers\.(\d)\.0\.", r"upsample.\1.conv."),
    (r"^upsample\.layers\.(\d)\.2\.", r"upsample.\1.transpose."),
    (r"^head\.layers\.0\.0\.", "head.0."),
    (r"^head\.layers\.1\.", "head.1."),
]
CHANNELS = (8, 12, 16, 20, 24)


@pytest.fixture(scope="module")
def reference():
    """Pyramid, upsampling and head as satlaspretrain_models joins them, for the maps from 1/4."""
    torchvision()
    modules = pytest.importorskip("satlaspretrain_models.models")
    strides = [[4, 12], [8, 16], [16, 20], [32, 24]]
    fpn = modules.FPN(strides)
    upsample = modules.Upsample(fpn.out_channels)
    head = modules.SimpleHead("segment", upsample.out_channels, 6)
    return randomise(torch.nn.ModuleDict({"fpn": fpn, "upsample": upsample, "head": head}), seed=0)


@pytest.mark.parametrize("unused", [0, 1])
def test_equal_to_satlaspretrain_models(reference, unused):
    """Over the four maps from stride 4, with and without a map of stride 2, which is not used."""
    channels = CHANNELS[1 - unused :]
    model = nnx.eval_shape(lambda: FPN(channels, 6, rngs=Draws(None)))
    copy_weights(untransposed(reference), model, NAMES)
    maps = pyramid(channels, (16 << unused, 24 << unused))
    with torch.no_grad():
        features = reference["fpn"]([nchw(x) for x in maps[unused:]])
        want = reference["head"].layers(reference["upsample"](features)[0])
    assert want.shape == (2, 6, 64, 96)
    assert_close(our_maps(model, maps), nhwc(want), 1e-5)


def test_the_parameters_are_those_of_the_paper():
    """2,056,582 over ResNet-50 (weights_spec 5.6)."""
    model = nnx.eval_shape(lambda: FPN((64, 256, 512, 1024, 2048), 6, rngs=Draws(None)))
    sizes = {
        name: sum(leaf.size for _, leaf in nnx.to_flat_state(nnx.state(part)))
        for name, part in (("fpn", model.fpn), ("upsample", model.upsample), ("head", model.head))
    }
    assert sizes == {"fpn": 1_082_368, "upsample": 819_712, "head": 154_502}
