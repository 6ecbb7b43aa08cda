import numpy as np
import pytest
from flax import nnx
from made_up import nchw, nhwc, untransposed
from oracles import randomise

from jaxcrop.models.draws import Draws
from jaxcrop.models.pyramid import PlainPyramid, resize

torch = pytest.importorskip("torch")

from side_by_side import assert_close, copy_weights, our_maps  # noqa: E402


@pytest.mark.parametrize("size", [(28, 36), (14, 9), (5, 20), (7, 9)])
def test_resize_equals_torch(size):
    """Larger, smaller, both at once, and not at all."""
    x = np.random.default_rng(0).normal(size=(2, 7, 9, 3)).astype(np.float32)
    want = torch.nn.functional.interpolate(nchw(x), size=size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resize(x, size), nhwc(want), atol=2e-6)


def test_plain_pyramid_equals_the_layers_of_beit():
    layers = torch.nn.ModuleDict(
        {
            "first": torch.nn.Sequential(
                torch.nn.ConvTranspose2d(8, 8, 2, 2),
                torch.nn.BatchNorm2d(8),
                torch.nn.GELU(),
                torch.nn.ConvTranspose2d(8, 8, 2, 2),
            ),
            "second": torch.nn.ConvTranspose2d(8, 8, 2, 2),
        }
    )
    randomise(layers, seed=0)
    model = nnx.eval_shape(lambda: PlainPyramid((8,) * 4, (16,) * 4, rngs=Draws(None)))
    names = [
        (r"^first\.0\.", "up_first."),
        (r"^first\.1\.", "bn."),
        (r"^first\.3\.", "up_again."),
        (r"^second\.", "up_second."),
    ]
    copy_weights(untransposed(layers), model, names)
    model.eval()
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(2, 4, 6, 8)).astype(np.float32) for _ in range(4)]
    first, second, third, fourth = map(nchw, maps)
    with torch.no_grad():
        want = [
            layers["first"](first),
            layers["second"](second),
            third,
            torch.nn.functional.max_pool2d(fourth, 2),
        ]
    assert_close(our_maps(model, maps), [nhwc(x) for x in want], 1e-5)
    assert model.strides == (4, 8, 16, 32)
