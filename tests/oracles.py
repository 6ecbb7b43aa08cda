"""The original libraries, as oracles: torchvision beside a CPU build of torch, random weights."""

import pytest

from jaxcrop.errors import InputError
from weights_convert.originals import import_torchvision


def torchvision():
    """The torchvision module, or a skip."""
    try:
        return import_torchvision()
    except InputError as error:
        pytest.skip(str(error))


def timm():
    """The timm module, which imports torchvision, or a skip."""
    torchvision()
    return pytest.importorskip("timm")


def randomise(module, seed: int):
    """The module in evaluation mode with a random value everywhere (`experiments/parity`)."""
    import checkpoints

    return checkpoints.randomise(module, seed)
