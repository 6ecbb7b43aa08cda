import numpy as np
import pytest
from flax import nnx
from made_up import nchw, nhwc, pyramid
from oracles import randomise, torchvision

from jaxcrop.models.draws import Draws
from jaxcrop.models.upernet import UPerNet, average_pool

torch = pytest.importorskip("torch")

from side_by_side import assert_close, copy_weights, our_maps  # noqa: E402

NAMES = [
    (r"^decoder\.", ""),
    (r"^feature_norms", "norms"),
    (r"^psp\.blocks\.(\d)\.1\.", r"pooling.blocks.\1."),
    (r"^psp\.out_conv", "pooling.fusion"),
    # smp counts laterals from the deepest map, we from the finest
    (r"^fpn_lateral_blocks\.0\.conv_norm_relu", "laterals.2"),
    (r"^fpn_lateral_blocks\.1\.conv_norm_relu", "laterals.1"),
    (r"^fpn_lateral_blocks\.2\.conv_norm_relu", "laterals.0"),
    (r"^fpn_conv_blocks\.0", "convs.2"),
    (r"^fpn_conv_blocks\.1", "convs.1"),
    (r"^fpn_conv_blocks\.2", "convs.0"),
    (r"^fusion_block", "fusion"),
    (r"^head\.0\.", "head."),
    (r"^((?!norms).*)\.0\.weight$", r"\1.conv.weight"),
    (r"^((?!norms).*)\.1\.(\w+)$", r"\1.bn.\2"),
]


@pytest.mark.parametrize("training", [False, True])
def test_equal_to_smp(training):
    """By running statistics and by those of the batch, over sizes that 6 bins divide unevenly."""
    torchvision()
    smp = pytest.importorskip("segmentation_models_pytorch")
    decoders = pytest.importorskip("segmentation_models_pytorch.decoders.upernet.decoder")
    channels = (8, 12, 16, 20, 24)
    reference = torch.nn.ModuleDict(
        {
            "decoder": decoders.UPerNetDecoder((3, *channels)),
            "head": smp.base.SegmentationHead(256, 6, kernel_size=1),
        }
    )
    randomise(reference, seed=0)
    model = nnx.eval_shape(lambda: UPerNet(channels, 6, rngs=Draws(None)))
    copy_weights(reference, model, NAMES)
    reference.train(training)
    model.train() if training else model.eval()

    maps = pyramid(channels, (48, 80))
    with torch.no_grad():
        want = reference["head"](reference["decoder"]([None, *map(nchw, maps)]))
    assert want.shape == (2, 6, 24, 40)
    assert_close(our_maps(model, maps), nhwc(want), 1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 7), (8, 8), (13, 12)])
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_average_pool_equals_torch(shape, size):
    x = np.random.default_rng(0).normal(size=(2, *shape, 4)).astype(np.float32)
    want = torch.nn.functional.adaptive_avg_pool2d(nchw(x), size)
    np.testing.assert_allclose(average_pool(x, size), nhwc(want), atol=1e-6)
