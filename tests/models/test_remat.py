"""Recomputed activations: the same numbers as kept ones, in less memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from made_up import fill, training_task

from jaxcrop.compiling import compiled
from jaxcrop.models.draws import Draws
from jaxcrop.models.fpn import FPN
from jaxcrop.models.linear import LinearHead
from jaxcrop.models.resnet import BasicBlock, ResNet
from jaxcrop.models.segmenter import Segmenter
from jaxcrop.models.swin import SwinTransformerV2
from jaxcrop.models.unet import UNet
from jaxcrop.models.upernet import UPerNet
from jaxcrop.models.vit import VisionTransformer
from jaxcrop.training.lora import adapters
from jaxcrop.training.step import loss_and_gradient

RESNET = partial(ResNet, BasicBlock, (1, 1, 1, 1))
SWIN = partial(SwinTransformerV2, 32, (1, 1, 1, 1), (1, 2, 4, 8))
VIT = partial(VisionTransformer, 8, 64, 4, 4)


def _model(backbone, decoder, remat):
    def create() -> Segmenter:
        rngs = Draws(None)
        made = backbone(3, rngs=rngs)
        return Segmenter(made, None, decoder(made.channels, 6, rngs=rngs))

    model = nnx.eval_shape(create)
    fill(model)
    model.set_attributes(remat=remat)
    return model


def _gradient(backbone, decoder, *, remat, lora):
    """Loss, gradient and moved statistics; and the bytes that the program needs for them."""
    task, params, rest = training_task(_model(backbone, decoder, remat), tune="full")
    if lora:
        rest |= params
        params = adapters(jax.random.key(0), rest, rank=4)
        params = {name: value + 0.05 for name, value in params.items()}
    rng = np.random.default_rng(0)
    image = rng.normal(size=(4, 64, 64, 3)).astype(np.float32)
    label = rng.integers(1, 6, (4, 64, 64)).astype(np.uint8)

    def step(params, rest):
        total = task.loss.weight(jnp.asarray(label))
        return loss_and_gradient(task, params, rest, image, label, total=total)

    # Both in the order of what recomputes.
    program = compiled(step, remat=True).lower(params, rest).compile()
    memory = program.memory_analysis().temp_size_in_bytes
    return jax.device_get(program(params, rest)), memory


@pytest.mark.parametrize(
    ("backbone", "decoder", "lora", "share"),
    [
        (RESNET, UNet, False, 0.7),
        (VIT, UPerNet, False, 0.7),
        (VIT, LinearHead, True, 0.5),
        (SWIN, FPN, False, 0.7),
    ],
    ids=["resnet-unet", "vit-upernet", "vit-linear-lora", "swin-fpn"],
)
def test_the_same_gradient_in_less_memory(backbone, decoder, lora, share):
    """Loss, gradients and moved statistics are those of kept activations, under the same names."""
    kept, memory = _gradient(backbone, decoder, remat=False, lora=lora)
    again, less = _gradient(backbone, decoder, remat=True, lora=lora)
    scale = max(abs(value).max() for value in kept[1].values())
    for expected, got in zip(kept, again, strict=True):
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4 * scale), got, expected
        )
    assert less < share * memory
