from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcrop.models.draws import Draws
from jaxcrop.models.layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    LayerNorm,
    Linear,
    PatchEmbedding,
)

torch = pytest.importorskip("torch")


def _nhwc(tensor):
    return tensor.detach().permute(0, 2, 3, 1).numpy()


def _run(layer, x):
    """What the layer makes of a torch image or map (b, c, h, w), compiled as one program."""
    return jax.jit(layer.__call__)(jnp.asarray(_nhwc(x)))


def _fill(layer, reference, axes):
    """Copy the torch layer's weight, with its axes in our order, and its bias if it has one."""
    weight = reference.weight.detach().numpy().transpose(axes)
    parameter = layer.scale if isinstance(layer, BatchNorm | LayerNorm) else layer.kernel
    assert parameter.shape == weight.shape
    parameter[...] = jax.device_put(weight.copy())
    assert (layer.bias is None) == (reference.bias is None)
    if layer.bias is not None:
        layer.bias[...] = jax.device_put(reference.bias.detach().numpy().copy())


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_conv_equals_torch(size, kernel, stride):
    reference = torch.nn.Conv2d(5, 4, kernel, stride, padding=kernel // 2)
    layer = Conv(5, 4, kernel, stride, use_bias=True, rngs=Draws(0))
    _fill(layer, reference, (2, 3, 1, 0))
    x = torch.randn(2, 5, size, size + 3)
    np.testing.assert_allclose(_run(layer, x), _nhwc(reference(x)), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5)])
@pytest.mark.parametrize(("kernel", "padding"), [(2, 0), (4, 1)])
@pytest.mark.usefixtures("backend")
def test_conv_transpose_equals_torch(kernel, padding, shape):
    reference = torch.nn.ConvTranspose2d(5, 4, kernel, stride=2, padding=padding)
    layer = ConvTranspose(5, 4, kernel, rngs=Draws(0))
    _fill(layer, reference, (2, 3, 0, 1))
    x = torch.randn(2, 5, *shape)
    np.testing.assert_allclose(_run(layer, x), _nhwc(reference(x)), atol=1e-5)


def test_conv_transpose_refuses_other_kernels():
    with pytest.raises(ValueError, match="kernel 2 or 4: 3"):
        ConvTranspose(5, 4, 3, rngs=Draws(0))


@pytest.mark.parametrize("patch", [4, 14])
def test_patch_embedding_equals_torch(patch):
    reference = torch.nn.Conv2d(3, 6, patch, stride=patch)
    layer = PatchEmbedding(3, 6, patch, rngs=Draws(0))
    _fill(layer, reference, (2, 3, 1, 0))
    x = torch.randn(2, 3, 2 * patch, 3 * patch)
    np.testing.assert_allclose(_run(layer, x), _nhwc(reference(x)), atol=1e-5)


@pytest.mark.parametrize("use_bias", [False, True])
def test_linear_equals_torch(use_bias):
    reference = torch.nn.Linear(5, 7, bias=use_bias)
    layer = Linear(5, 7, use_bias=use_bias, rngs=Draws(0))
    _fill(layer, reference, (1, 0))
    x = torch.randn(2, 3, 5)
    want = reference(x).detach().numpy()
    np.testing.assert_allclose(layer(jnp.asarray(x.numpy())), want, atol=1e-5)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-2])
@pytest.mark.usefixtures("backend")
def test_layer_norm_equals_torch(epsilon):
    """With values so small that the epsilon shows."""
    reference = torch.nn.LayerNorm(6, eps=epsilon)
    torch.nn.init.normal_(reference.weight)
    torch.nn.init.normal_(reference.bias)
    layer = LayerNorm(6, epsilon, rngs=Draws(0))
    _fill(layer, reference, (0,))
    x = 3 + 0.01 * torch.randn(2, 3, 6)
    want = reference(x).detach().numpy()
    np.testing.assert_allclose(layer(jnp.asarray(x.numpy())), want, atol=1e-3)


@pytest.mark.parametrize("kind", [BatchNorm, partial(LayerNorm, epsilon=1e-5)])
@pytest.mark.usefixtures("backend")
def test_statistics_of_bfloat16_are_in_float32(kind):
    """Normalised as the same values in float32 are, and rounded once; a mean far from 0 shows it.

    bfloat16 holds eight bits: sums over 4096 values in it would be off by far more than one.
    """
    layer, other = kind(64, rngs=Draws(0)), kind(64, rngs=Draws(0))
    x = jnp.asarray(np.random.default_rng(0).normal(20, 1, (4, 32, 32, 64)), jnp.bfloat16)
    got = layer(x)
    assert got.dtype == jnp.bfloat16
    want = other(x.astype(jnp.float32))
    np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=2**-8, atol=1e-6)
    for statistic in jax.tree.leaves(nnx.state(layer, nnx.BatchStat)):
        assert statistic.dtype == jnp.float32


@pytest.mark.usefixtures("backend")
def test_batch_norm_equals_torch():
    """Outputs in both modes and the running statistics, whose variance torch keeps unbiased."""
    reference = torch.nn.BatchNorm2d(3)
    torch.nn.init.normal_(reference.weight)
    torch.nn.init.normal_(reference.bias)
    layer = BatchNorm(3, rngs=Draws(0))
    _fill(layer, reference, (0,))
    for seed in range(3):
        x = 2 + 3 * torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
        np.testing.assert_allclose(layer(jnp.asarray(_nhwc(x))), _nhwc(reference(x)), atol=1e-5)
    np.testing.assert_allclose(layer.mean[...], reference.running_mean, rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], reference.running_var, rtol=1e-5)
    reference.eval()
    layer.eval()
    np.testing.assert_allclose(layer(jnp.asarray(_nhwc(x))), _nhwc(reference(x)), atol=1e-5)
    np.testing.assert_allclose(layer.var[...], reference.running_var, rtol=1e-5)
