import numpy as np
import pytest
from scipy import stats

from jaxcrop.errors import InputError
from jaxcrop.statistics.ranks import kendall_tau, kendall_w, rank_stability


def test_by_hand():
    found = rank_stability([[0.9, 0.5, 0.1], [0.8, 0.8, 0.2], [0.3, 0.6, 0.5], [0.7, 0.6, 0.5]])
    np.testing.assert_allclose(found.mean_ranks, [(1 + 1.5 + 3 + 1) / 4, 6.5 / 4, 11 / 4])
    np.testing.assert_allclose(found.first, [2.5 / 4, 1.5 / 4, 0])
    np.testing.assert_allclose(
        found.wins, [[0.5, 2.5 / 4, 3 / 4], [1.5 / 4, 0.5, 1], [1 / 4, 0, 0.5]]
    )


def test_normal_scores_have_the_closed_forms_chances():
    """Three independent families, two of them alike: the chance of a win is a normal's."""
    mean, draws = np.array([1.0, 0, 0]), 40_000
    found = rank_stability(np.random.default_rng(0).normal(mean, 1, (draws, 3)))
    ahead = stats.norm.cdf(1 / np.sqrt(2))
    np.testing.assert_allclose(
        found.wins, [[0.5, ahead, ahead], [1 - ahead, 0.5, 0.5], [1 - ahead, 0.5, 0.5]], atol=0.01
    )
    x = np.linspace(-6, 8, 4001)
    first = np.trapezoid(stats.norm.pdf(x - 1) * stats.norm.cdf(x) ** 2, x)
    np.testing.assert_allclose(found.first, [first, (1 - first) / 2, (1 - first) / 2], atol=0.01)


@pytest.mark.parametrize("ties", [False, True])
def test_concordance_is_friedmans_statistic_divided(ties):
    scores = np.random.default_rng(0).normal([0, 0.5, 1, 1], 1, (9, 4))
    scores = scores.round(0) if ties else scores
    chi = stats.friedmanchisquare(*scores.T).statistic
    assert kendall_w(scores) == pytest.approx(chi / (9 * 3))


def test_concordance_of_one_order_and_of_none():
    assert kendall_w([[3, 2, 1]] * 4) == 1
    assert kendall_w([[1, 2, 3], [2, 3, 1], [3, 1, 2]]) == 0
    assert np.isnan(kendall_w([[1, 1, 1]] * 4))


def test_tau_between_budgets():
    """By counting pairs: of six, one or all are the other way round; one is tied."""
    scores = [[1, 2, 3, 4], [1, 2, 4, 3], [4, 3, 2, 1], [1, 1, 3, 4]]
    tau = kendall_tau(scores)
    np.testing.assert_allclose(tau[0], [1, 4 / 6, -1, 5 / np.sqrt(5 * 6)])
    np.testing.assert_allclose(tau, tau.T)


def test_refused():
    with pytest.raises(InputError, match="missing"):
        rank_stability([[0.1, np.nan], [0.2, 0.3]])
    with pytest.raises(InputError, match="no order"):
        rank_stability([[0.1], [0.2]])
