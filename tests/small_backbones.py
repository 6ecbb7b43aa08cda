"""Tiny backbones under the names of large ones, for tests of what is done with a model."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

from jaxcrop.models.backbones import BACKBONES
from jaxcrop.models.resnet import BasicBlock, ResNet
from jaxcrop.models.swin import SwinTransformerV2
from jaxcrop.models.vit import VisionTransformer

SMALL = {
    "resnet18": partial(ResNet, BasicBlock, (1, 1, 1, 1), width=8),
    "vit-s16": partial(VisionTransformer, 16, 32, 4, 2),
    "swin-v2-t": partial(SwinTransformerV2, 32, (1, 1, 2, 1), (1, 2, 4, 8)),
}


@contextmanager
def small_backbones() -> Iterator[None]:
    """A block in which they stand for the architectures of their names."""
    with mock.patch.dict(BACKBONES, SMALL):
        yield
