"""A three-channel stem extended to any number of bands."""

import numpy as np

from jaxcrop.errors import InputError


def adapt_stem(kernel: np.ndarray, in_channels: int) -> np.ndarray:
    """Extend a stem kernel (height, width, 3, output) to `in_channels`, as timm and smp do.

    One channel takes the sum of the three; otherwise channel i takes channel i mod 3, scaled by
    3 / in_channels (weights_spec 4). Raises InputError for a kernel of other than three channels.
    """
    if kernel.shape[2] == in_channels:
        return kernel
    if kernel.shape[2] != 3:
        raise InputError(
            f"a stem of {kernel.shape[2]} channels cannot take {in_channels}: "
            "only a three-channel stem can be extended"
        )
    if in_channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel[:, :, np.arange(in_channels) % 3] * np.float32(3 / in_channels)
