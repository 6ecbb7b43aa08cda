import numpy as np
import pytest
from made_up_matrices import random_matrices

from jaxcrop.statistics.policies import moving_denominator
from jaxcrop.training.metrics import metrics


@pytest.mark.parametrize("score", ["accuracy", "f1", "precision", "recall", "jaccard"])
def test_the_papers_average_is_the_factor_times_that_of_present_classes(score):
    """`metrics` is tested against torchmetrics; the cases have classes absent and stray."""
    confusions = random_matrices(0, 300, empty=0.6)
    values, found = metrics(confusions), moving_denominator(confusions, score)
    np.testing.assert_allclose(
        values[f"average_{score}"], values[f"present_{score}"] * found.factor, rtol=1e-12
    )
    assert np.isnan(found.factor).any()
    assert (found.absent > 0).mean() > 0.3


def test_one_stray_pixel_moves_the_denominator():
    """peers.md 0.1: soybean and other in South America, stray pixels of two absent crops."""
    confusion = np.zeros((6, 6), int)
    confusion[2, 2], confusion[5, 5] = 8000, 9000
    assert moving_denominator(confusion) == (2, 0, 1.0)
    confusion[2, 1] = confusion[5, 3] = 1
    assert moving_denominator(confusion) == (4, 2, 0.5)
    confusion[2, 0] = 1
    assert moving_denominator(confusion, "f1") == (5, 3, 0.4)
    assert moving_denominator(confusion, "jaccard") == (4, 2, 0.5)  # never counts class 0
