"""Adapters against what they stand for: a frozen kernel plus a product of two matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_up import fill

from jaxcrop.models.segmenter import abstract_segmenter
from jaxcrop.training.lora import adapters, merged
from jaxcrop.training.network import Network, values_of


@pytest.fixture(scope="module", params=["vit-s16", "swin-v2-t"])
def model(request, small_backbones):
    model = abstract_segmenter(request.param, "linear", 3, 6)
    fill(model)
    model.eval()
    return Network.of(model), values_of(model)


def test_attention_of_every_block_is_adapted(model):
    _, values = model
    added = adapters(jax.random.key(0), values, rank=4)
    blocks = sum(name.endswith("attn.qkv.kernel") for name in values)
    assert len(added) == 4 * blocks
    same = merged(values | added)
    assert same.keys() == values.keys()
    assert all(np.array_equal(same[name], values[name]) for name in values)


def test_the_gradient_is_that_of_the_kernel_through_the_product(model):
    """dL/dB is A^T dL/dW and dL/dA is dL/dW B^T, W's gradient taken without adapters."""
    network, values = model
    added = adapters(jax.random.key(0), values, rank=4)
    rng = np.random.default_rng(0)
    added = {n: v + 0.02 * rng.normal(size=v.shape).astype(np.float32) for n, v in added.items()}
    image = jnp.asarray(rng.random((1, 64, 64, 3), np.float32))

    def loss(values):
        return jnp.square(network.module(values)(image)).mean()

    slopes = jax.jit(jax.grad(lambda added: loss(merged(values | added))))(added)
    kernels = jax.jit(jax.grad(loss))(merged(values | added))
    slopes, kernels, added = map(jax.device_get, (slopes, kernels, added))
    for name in added:
        kernel = name.removesuffix(".lora_a").removesuffix(".lora_b")
        if name.endswith("_a"):
            want = kernels[kernel] @ added[f"{kernel}.lora_b"].T
        else:
            want = added[f"{kernel}.lora_a"].T @ kernels[kernel]
        scale = max(float(abs(want).max()), 1e-12)
        np.testing.assert_allclose(slopes[name], want, atol=2e-4 * scale, err_msg=name)
