"""What the layers compute beside PyTorch's functions, with the gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcrop.models.primitives import max_pool


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 2)])
@pytest.mark.parametrize("values", ["all differ", "many are equal"])
def test_max_pooling_is_that_of_pytorch(size, values):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    if values == "many are equal":
        x = np.round(x)
    theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    want = torch.nn.functional.max_pool2d(theirs, 3, stride=2, padding=1)
    slope = rng.normal(size=want.shape).astype(np.float32)
    want.backward(torch.tensor(slope))
    found, pull = jax.vjp(max_pool, jnp.asarray(x))
    (gradient,) = pull(jnp.asarray(slope.transpose(0, 2, 3, 1)))
    np.testing.assert_array_equal(found, want.detach().permute(0, 2, 3, 1))
    np.testing.assert_allclose(gradient, theirs.grad.permute(0, 2, 3, 1), atol=1e-6)
