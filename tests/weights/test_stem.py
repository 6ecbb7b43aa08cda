import numpy as np
import oracles
import pytest

from jaxcrop.errors import InputError
from jaxcrop.weights.stem import adapt_stem


@pytest.mark.parametrize("in_channels", [1, 2, 3, 4, 9, 13])
def test_the_extension_equals_timm_bit_for_bit(in_channels):
    timm = oracles.timm()
    torch = pytest.importorskip("torch")
    kernel = np.random.default_rng(0).standard_normal((7, 7, 3, 64)).astype(np.float32)
    theirs = timm.models.adapt_input_conv(
        in_channels, torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    )
    ours = adapt_stem(kernel, in_channels)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs.numpy().transpose(2, 3, 1, 0))


def test_only_a_three_channel_stem_is_extended():
    with pytest.raises(InputError, match="a stem of 9 channels cannot take 13"):
        adapt_stem(np.zeros((7, 7, 9, 64), np.float32), 13)
