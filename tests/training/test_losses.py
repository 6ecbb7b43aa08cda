"""Values and gradients against PyTorch's and segmentation_models_pytorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import torchvision

from jaxcrop.config import LossConfig
from jaxcrop.training.losses import class_weights, cross_entropy_sum, make_loss

PIXELS = np.array([500, 1_000_000, 0, 20_000, 300_000, 5_000_000])


def _example(seed=0, ignored=0.5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(4, 16, 16, 6)).astype(np.float32) * 3
    label = rng.choice([1, 3, 4, 5], (4, 16, 16)).astype(np.uint8)
    label[rng.random(label.shape) < ignored] = 0
    return logits, label


def _theirs(criterion, logits, label):
    torch = pytest.importorskip("torch")
    leaf = torch.from_numpy(logits).requires_grad_()
    value = criterion(leaf.permute(0, 3, 1, 2), torch.from_numpy(label).long())
    value.backward()
    return value.item(), leaf.grad.numpy()


def _agree(loss, criterion, logits, label):
    got, gradient = jax.jit(jax.value_and_grad(loss))(logits, label)
    want, slope = _theirs(criterion, logits, label)
    np.testing.assert_allclose(got, want, rtol=2e-5)
    np.testing.assert_allclose(gradient, slope, rtol=2e-4, atol=2e-5 * abs(slope).max())


@pytest.mark.parametrize("ignored", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["none", "inverse", "effective"])
def test_cross_entropy_equals_torch(ignored, smoothing, kind):
    torch = pytest.importorskip("torch")
    loss = make_loss(LossConfig(class_weights=kind, label_smoothing=smoothing), PIXELS)
    weight = torch.from_numpy(class_weights(kind, PIXELS))
    criterion = torch.nn.CrossEntropyLoss(weight, ignore_index=0, label_smoothing=smoothing)
    _agree(loss, criterion, *_example(ignored=ignored))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_is_its_paper_s(gamma):
    """-w (1 - p)^gamma log p, written with PyTorch; smp's treats classes as yes or no each."""
    torch = pytest.importorskip("torch")
    weight = torch.from_numpy(class_weights("inverse", PIXELS))

    def focal(logits, label):
        chosen = label != 0
        p = logits.softmax(1).gather(1, label[:, None])[:, 0][chosen]
        weights = weight[label[chosen]]
        return -(weights * (1 - p) ** gamma * p.log()).sum() / weights.sum()

    config = LossConfig(("focal",), class_weights="inverse", focal_gamma=gamma)
    _agree(make_loss(config, PIXELS), focal, *_example())


@pytest.mark.parametrize("name", ["dice", "jaccard"])
def test_region_losses_equal_smp_s(name):
    """Over the four classes that the labels have, where smp divides by all six."""
    torchvision()
    losses = pytest.importorskip("segmentation_models_pytorch").losses
    kind = {"dice": losses.DiceLoss, "jaccard": losses.JaccardLoss}[name]
    theirs = kind(mode="multiclass", ignore_index=0)
    loss = make_loss(LossConfig((name,)), PIXELS)
    _agree(loss, lambda *pair: theirs(*pair) * 6 / 4, *_example())


def test_losses_are_added_up_by_their_factors():
    torchvision()
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("segmentation_models_pytorch").losses.DiceLoss("multiclass")
    theirs.ignore_index = 0
    entropy = torch.nn.CrossEntropyLoss(ignore_index=0)
    loss = make_loss(LossConfig(("cross-entropy", "dice"), loss_weights=(1.0, 0.5)), PIXELS)
    _agree(loss, lambda *pair: entropy(*pair) + 0.5 * theirs(*pair) * 6 / 4, *_example())


def test_the_parts_of_a_batch_add_up():
    loss = make_loss(LossConfig(("cross-entropy", "focal"), class_weights="inverse"), PIXELS)
    logits, label = _example()
    label[0] = 0
    whole = jax.grad(loss)(logits, label)
    total = loss.weight(label)
    halves = [jax.grad(loss)(logits[i : i + 2], label[i : i + 2], total, 2) for i in (0, 2)]
    np.testing.assert_allclose(whole, np.concatenate(halves), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["cross-entropy", "focal", "dice", "jaccard"])
def test_a_batch_without_labels_has_no_loss_and_no_gradient(name):
    """PyTorch gives NaN, which one crop of a sparsely labelled chip would spread to all weights."""
    loss = make_loss(LossConfig((name,), label_smoothing=0.1), PIXELS)
    logits, label = _example(ignored=1.0)
    value, gradient = jax.value_and_grad(loss)(logits, label)
    assert value == 0
    assert not np.any(gradient)


def test_certainty_is_no_trouble_for_the_focal_loss():
    loss = make_loss(LossConfig(("focal",), focal_gamma=0.5), PIXELS)
    logits = jnp.zeros((1, 1, 1, 6)).at[..., 4].set(200.0)
    value, gradient = jax.value_and_grad(loss)(logits, np.full((1, 1, 1), 4, np.uint8))
    assert value == 0
    assert np.isfinite(gradient).all()


def test_weights_follow_their_definitions():
    inverse = class_weights("inverse", PIXELS)
    assert inverse[0] == inverse[2] == 0
    np.testing.assert_allclose(inverse[1] / inverse[5], 5, rtol=1e-6)
    share = PIXELS[1:] / PIXELS[1:].sum()
    np.testing.assert_allclose((inverse[1:] * share).sum(), 1, rtol=1e-6)
    effective = class_weights("effective", PIXELS)
    numbers = [(1 - 0.99 ** (PIXELS[c] / 65536)) / (1 - 0.99) for c in (3, 5)]
    np.testing.assert_allclose(effective[3] / effective[5], numbers[1] / numbers[0], rtol=1e-5)
    assert not class_weights("inverse", np.zeros(6, int)).any()


def test_the_sum_divided_by_the_pixels_is_torch_s_mean():
    torch = pytest.importorskip("torch")
    logits, label = _example()
    total, count = cross_entropy_sum(logits, label)
    want, _ = _theirs(torch.nn.CrossEntropyLoss(ignore_index=0), logits, label)
    np.testing.assert_allclose(total / count, want, rtol=1e-6)
