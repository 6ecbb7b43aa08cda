import numpy as np
import pytest
from made_up import nchw, nhwc

from jaxcrop.models.draws import Draws
from jaxcrop.models.linear import LinearHead

torch = pytest.importorskip("torch")

from side_by_side import assert_close, our_maps  # noqa: E402


@pytest.mark.parametrize("sizes", [((24, 16), (12, 8), (3, 2)), ((5, 7), (5, 7)), ((9, 9), (4, 7))])
def test_equal_to_a_1x1_convolution_of_the_resized_maps(sizes):
    """In torch, over all maps resized to the first and concatenated."""
    rng = np.random.default_rng(0)
    channels = tuple(range(8, 8 + len(sizes)))
    maps = [
        rng.normal(size=(2, *size, c)).astype(np.float32)
        for size, c in zip(sizes, channels, strict=True)
    ]
    model = LinearHead(channels, 6, rngs=Draws(0))
    model.classifiers[0].bias[...] = rng.normal(size=6).astype(np.float32)

    kernel = np.concatenate([classifier.kernel[...] for classifier in model.classifiers])
    resized = [
        torch.nn.functional.interpolate(
            nchw(x), size=sizes[0], mode="bilinear", align_corners=False
        )
        for x in maps
    ]
    want = torch.nn.functional.conv2d(
        torch.cat(resized, dim=1),
        torch.from_numpy(kernel.T.copy())[:, :, None, None],
        torch.from_numpy(np.array(model.classifiers[0].bias[...])),
    )
    assert_close(our_maps(model, maps), nhwc(want), 1e-5)
