import pytest
from flax import nnx
from made_up import nchw, nhwc, pyramid
from oracles import randomise, torchvision

from jaxcrop.models.draws import Draws
from jaxcrop.models.unet import WIDTHS, UNet

torch = pytest.importorskip("torch")

from side_by_side import assert_close, copy_weights, our_maps  # noqa: E402

NAMES = [
    (r"^decoder\.", ""),
    (r"(conv\d)\.0\.", r"\1.conv."),
    (r"(conv\d)\.1\.", r"\1.bn."),
    (r"^head\.0\.", "head."),
]


@pytest.mark.parametrize("channels", [(8, 12, 16, 20, 24), (12, 16, 20, 24)])
@pytest.mark.usefixtures("backend")
def test_equal_to_smp(channels):
    """Over a pyramid from stride 2, and over one from stride 4: smp's first map has no channel."""
    torchvision()
    smp = pytest.importorskip("segmentation_models_pytorch")
    decoders = pytest.importorskip("segmentation_models_pytorch.decoders.unet.decoder")
    below_full_size = channels if len(channels) == 5 else (0, *channels)
    reference = torch.nn.ModuleDict(
        {
            "decoder": decoders.UnetDecoder((3, *below_full_size), WIDTHS),
            "head": smp.base.SegmentationHead(WIDTHS[-1], 6),
        }
    )
    randomise(reference, seed=0)
    model = nnx.eval_shape(lambda: UNet(channels, 6, rngs=Draws(None)))
    copy_weights(reference, model, NAMES)
    model.eval()

    height, width = (64, 96)
    finest = 2 if len(channels) == 5 else 4
    maps = pyramid(channels, (height // finest, width // finest))
    theirs = [torch.zeros(2, 3, height, width), *map(nchw, maps)]
    if finest == 4:
        theirs.insert(1, torch.zeros(2, 0, height // 2, width // 2))
    with torch.no_grad():
        want = reference["head"](reference["decoder"](theirs))
    assert_close(our_maps(model, maps), nhwc(want), 1e-5)
