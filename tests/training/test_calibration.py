import jax
import numpy as np
import pytest
from oracles import torchvision

from jaxcrop.training.calibration import calibration_bins, calibration_errors


@pytest.mark.parametrize("scale", [0.3, 2.0, 30.0])
def test_errors_equal_torchmetrics(scale):
    torch = pytest.importorskip("torch")
    torchvision()
    calibration_error = pytest.importorskip(
        "torchmetrics.functional.classification"
    ).multiclass_calibration_error
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 40, 40, 6)).astype(np.float32) * scale
    label = rng.integers(0, 6, (3, 40, 40)).astype(np.uint8)
    label[:, :20] = logits[:, :20].argmax(-1)
    bins = jax.jit(calibration_bins)(logits, label)
    assert float(bins[:, 0].sum()) == (label != 0).sum()
    got = calibration_errors(bins)
    flat = torch.from_numpy(logits.reshape(-1, 6)).softmax(1)
    truth = torch.from_numpy(label.ravel()).long()
    for name, norm in (("expected", "l1"), ("maximum", "max")):
        want = calibration_error(flat, truth, 6, n_bins=15, norm=norm, ignore_index=0)
        np.testing.assert_allclose(got[name], want, atol=1e-5)


def test_classes_that_are_not_allowed_take_no_confidence():
    logits = np.full((1, 1, 2, 6), np.finfo(np.float32).min, np.float32)
    logits[..., 4] = 1.0
    bins = calibration_bins(logits, np.array([[[4, 0]]], np.uint8))
    np.testing.assert_array_equal(bins[-1], [1, 1, 1])
    assert calibration_errors(bins) == {"expected": 0.0, "maximum": 0.0}
    assert np.isnan(calibration_errors(np.zeros((15, 3)))["expected"])
