import jax
import numpy as np
import pytest

from jaxcrop.training.losses import cross_entropy


@pytest.mark.parametrize("ignored", [0.0, 0.5, 0.99])
def test_cross_entropy_equals_torch(ignored):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 16, 16, 6)).astype(np.float32) * 3
    label = rng.integers(1, 6, (3, 16, 16)).astype(np.uint8)
    label[rng.random(label.shape) < ignored] = 0
    criterion = torch.nn.CrossEntropyLoss(ignore_index=0)
    leaf = torch.from_numpy(logits).requires_grad_()
    want = criterion(leaf.permute(0, 3, 1, 2), torch.from_numpy(label).long())
    want.backward()
    got, gradient = jax.value_and_grad(cross_entropy)(logits, label)
    np.testing.assert_allclose(got, want.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, leaf.grad, rtol=1e-5, atol=1e-8)


def test_a_batch_without_labels_has_no_loss_and_no_gradient():
    """PyTorch gives NaN, which one crop of a sparsely labelled chip would spread to all weights."""
    logits = np.random.default_rng(0).normal(size=(2, 8, 8, 6)).astype(np.float32)
    loss, gradient = jax.value_and_grad(cross_entropy)(logits, np.zeros((2, 8, 8), np.uint8))
    assert loss == 0
    assert not np.any(gradient)
