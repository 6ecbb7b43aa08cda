"""What the layers compute beside PyTorch's functions, with the gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcrop.models.primitives import joined, max_pool, normalise_by_batch


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


@pytest.mark.usefixtures("backend")
def test_batch_normalisation_has_the_gradient_of_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, slope = rng.normal(3, 2, (2, 2, 4, 6, 5))
    scale, bias = rng.normal(size=(2, 5))
    theirs = [torch.tensor(array, requires_grad=True) for array in (x, scale, bias)]
    want = torch.nn.functional.batch_norm(
        theirs[0].permute(0, 3, 1, 2), None, None, *theirs[1:], training=True
    )
    want.backward(torch.tensor(slope).permute(0, 3, 1, 2))

    def normalised(x, scale, bias):
        return normalise_by_batch(x, scale, bias, jnp.full(5, 2.5), 1e-5)[0]

    found, pull = jax.vjp(normalised, *(jnp.asarray(a, jnp.float32) for a in (x, scale, bias)))
    np.testing.assert_allclose(found, want.detach().permute(0, 2, 3, 1), atol=1e-5)
    for gradient, right in zip(pull(jnp.asarray(slope, jnp.float32)), theirs, strict=True):
        np.testing.assert_allclose(gradient, right.grad, atol=1e-4)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("near", "error"), [(1000, 1e-5), (990, 1e-3)])
def test_statistics_far_from_zero_are_rounded_little(near, error):
    """Of a mean of 1000 times the deviation, from where the means of earlier batches were."""
    x = np.random.default_rng(0).normal(1000, 1, (4, 32, 32, 3)).astype(np.float32)
    ones = jnp.ones(3)
    _, mean, var = normalise_by_batch(jnp.asarray(x), ones, ones, near * ones, 1e-5)
    exact = x.astype(float)
    np.testing.assert_allclose(mean, exact.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var(axis=(0, 1, 2)), rtol=error)


def test_a_residual_block_ends_as_in_pytorch():
    torch = pytest.importorskip("torch")
    x, shortcut, slope = np.random.default_rng(0).normal(size=(3, 2, 3, 4, 5)).astype(np.float32)
    theirs = [torch.tensor(array, requires_grad=True) for array in (x, shortcut)]
    want = torch.relu(sum(theirs))
    want.backward(torch.tensor(slope))
    found, pull = jax.vjp(joined, jnp.asarray(x), jnp.asarray(shortcut))
    np.testing.assert_array_equal(found, want.detach())
    for gradient, right in zip(pull(jnp.asarray(slope)), theirs, strict=True):
        np.testing.assert_array_equal(gradient, right.grad)
