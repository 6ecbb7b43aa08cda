import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcrop.models.layers import BatchNorm, Conv, convolve_upsampled

torch = pytest.importorskip("torch")


def _nhwc(tensor):
    return tensor.detach().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_conv_equals_torch(size, kernel, stride):
    reference = torch.nn.Conv2d(5, 4, kernel, stride, padding=kernel // 2)
    layer = Conv(5, 4, kernel, stride, use_bias=True, rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.asarray(reference.weight.detach().numpy().transpose(2, 3, 1, 0))
    layer.bias[...] = jnp.asarray(reference.bias.detach().numpy())
    x = torch.randn(2, 5, size, size + 3)
    np.testing.assert_allclose(layer(jnp.asarray(_nhwc(x))), _nhwc(reference(x)), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 8)])
def test_convolve_upsampled_equals_torch(shape):
    x, weight = torch.randn(2, 6, *shape), torch.randn(4, 6, 3, 3)
    upsampled = torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    want = torch.nn.functional.conv2d(upsampled, weight, padding=1)
    kernel = jnp.asarray(weight.permute(2, 3, 1, 0).numpy())
    got = convolve_upsampled(jnp.asarray(_nhwc(x)), kernel)
    np.testing.assert_allclose(got, _nhwc(want), atol=1e-4)


def test_batch_norm_equals_torch():
    """Outputs in both modes and the running statistics, whose variance torch keeps unbiased."""
    reference = torch.nn.BatchNorm2d(3)
    torch.nn.init.normal_(reference.weight)
    torch.nn.init.normal_(reference.bias)
    layer = BatchNorm(3, rngs=nnx.Rngs(0))
    layer.scale[...] = jnp.asarray(reference.weight.detach().numpy())
    layer.bias[...] = jnp.asarray(reference.bias.detach().numpy())
    for seed in range(3):
        x = 2 + 3 * torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
        np.testing.assert_allclose(layer(jnp.asarray(_nhwc(x))), _nhwc(reference(x)), atol=1e-5)
    np.testing.assert_allclose(layer.mean[...], reference.running_mean, rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], reference.running_var, rtol=1e-5)
    reference.eval()
    layer.eval()
    np.testing.assert_allclose(layer(jnp.asarray(_nhwc(x))), _nhwc(reference(x)), atol=1e-5)
    np.testing.assert_allclose(layer.var[...], reference.running_var, rtol=1e-5)
