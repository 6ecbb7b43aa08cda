import numpy as np
import pytest

from jaxcrop.training.calibration import calibration_bins
from jaxcrop.training.reliability import reliability_figure


@pytest.fixture(scope="module")
def pixels():
    """Logits of three classes and labels that are right less often than they say."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 64, 64, 3)).astype(np.float32) * 1.5
    label = logits.argmax(-1).astype(np.uint8)
    label[:, :20] = rng.integers(0, 3, label[:, :20].shape)  # 0, ignored, among them
    return logits, label


def test_bars_equal_scikit_learn(pixels):
    """Accuracy and mean confidence of each bin are those of its calibration curve."""
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    logits, label = pixels
    figure = reliability_figure(calibration_bins(*pixels, bins=10))
    above, below = figure.axes
    accuracy, over, under = above.containers
    share = below.containers[0]

    chosen = label > 0
    powers = np.exp(logits.astype(np.float64))
    confidence = (powers.max(-1) / powers.sum(-1))[chosen]
    right = (logits.argmax(-1) == label)[chosen]
    rates, means = curve(right, confidence, n_bins=10)
    heights = [[bar.get_height() for bar in bars] for bars in (accuracy, over, under)]
    np.testing.assert_allclose(heights[0], rates, atol=1e-6)
    np.testing.assert_allclose(np.sum(heights, axis=0), means, atol=1e-6)
    assert max(heights[1]) > 0.01 > -0.01 > min(heights[2])  # both kinds of gap are drawn

    counts, edges = np.histogram(confidence, 10, (0, 1))
    held = counts > 0
    np.testing.assert_allclose([bar.get_height() for bar in share], counts[held] / counts.sum())
    for bars in (accuracy, over, under, share):
        np.testing.assert_allclose([bar.get_x() for bar in bars], edges[:-1][held], atol=1e-12)


def test_the_title_says_the_error_and_that_data_are_synthetic():
    bins = np.zeros((15, 3))
    bins[[9, 14]] = (30, 18.9, 12), (70, 68, 66)  # |12 - 18.9| + |66 - 68| = 8.9 of 100 pixels
    assert reliability_figure(bins).axes[0].get_title() == "expected calibration error 8.9%"
    title = reliability_figure(bins, synthetic=True).axes[0].get_title()
    assert title == "expected calibration error 8.9% (synthetic data)"
    empty = reliability_figure(np.zeros((15, 3)))
    assert empty.axes[0].get_title() == "no pixels"
