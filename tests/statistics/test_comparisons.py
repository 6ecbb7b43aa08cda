import numpy as np
import pandas as pd
import pytest
from made_up_matrices import matrices, random_matrices
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from jaxcrop.errors import InputError
from jaxcrop.statistics.bootstrap import bootstrap_metric, bootstrap_runs
from jaxcrop.statistics.comparisons import (
    benjamini_hochberg,
    friedman,
    holm,
    nemenyi_difference,
    p_value_of_zero,
    paired_difference,
    wilcoxon,
)

ACCURACY = "overall_accuracy"

# Table 6 of Demšar (2006): AUC of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 datasets. In the last
# but one, the paper ranks the third before the fourth, though both are printed as 0.975.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


@pytest.mark.parametrize("count", [1, 2, 15])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")], ids=["holm", "bh"]
)
def test_corrections_equal_statsmodels(ours, theirs, count):
    p = np.random.default_rng(count).beta(0.3, 2, count).round(3)  # with ties
    expected = multipletests(p, method=theirs)[1]
    np.testing.assert_allclose(ours(p), expected)
    with_missing = np.insert(p, [0, count], np.nan)
    np.testing.assert_allclose(ours(with_missing), [np.nan, *expected, np.nan])
    assert np.isnan(ours([np.nan])).all()
    assert ours([]).size == 0


def test_wilcoxon():
    a, b = np.random.default_rng(0).normal([[0.3], [0]], 1, (2, 9))
    assert wilcoxon(a, b) == (stats.wilcoxon(a, b).statistic, stats.wilcoxon(a, b).pvalue)
    missing = wilcoxon([0.1, 0.2, 0.3, np.nan, 0.6, 0.8], [0, 0, 0, 0, 0, 0])
    assert missing.p_value == pytest.approx(1 / 16)  # five regions, all one way
    assert wilcoxon([0.5, 0.6], [0.5, 0.6]) == (0, 1)


def test_friedman_on_published_scores():
    found = friedman(DEMSAR)
    np.testing.assert_allclose(found.mean_ranks, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    assert friedman(DEMSAR, alpha=0.10).critical_difference == pytest.approx(1.12, abs=0.005)
    # The paper's statistic is not corrected for its three pairs of ties and one of all four.
    correction = 1 - (3 * (2**3 - 2) + 4**3 - 4) / (14 * 4 * (4**2 - 1))
    assert found.statistic * correction == pytest.approx(9.28, abs=0.01)


@pytest.mark.parametrize("ties", [False, True])
def test_friedman_is_analysis_of_variance_of_ranks(ties):
    scores = np.random.default_rng(1).normal([0, 0.5, 1], 1, (8, 3))
    scores = scores.round(0) if ties else scores
    found = friedman(scores)
    assert found.statistic == pytest.approx(stats.friedmanchisquare(*scores.T).statistic)
    dataset, family = (part.ravel() for part in np.indices(scores.shape))
    ranks = stats.rankdata(-scores, axis=1).ravel()
    table = pd.DataFrame({"rank": ranks, "dataset": dataset, "family": family})
    squares = anova_lm(ols("rank ~ C(family) + C(dataset)", table).fit())
    f = squares.F["C(family)"]  # all rows have one mean: the datasets take no squares but freedom
    assert found.p_value == pytest.approx(stats.f.sf(f, 2, 14))


def test_friedman_of_one_order_and_of_none():
    assert friedman([[3, 2, 1]] * 4).p_value == 0
    assert friedman([[1, 2, 3], [2, 3, 1], [3, 1, 2]]).p_value == 1
    assert np.isnan(friedman([[1, 1, 1]] * 4).p_value)


@pytest.mark.parametrize(
    ("families", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (6, 2.850), (10, 3.164)]
)
def test_nemenyis_difference_has_the_published_quantiles(families, q):
    """Table 5 of Demšar (2006)."""
    expected = q * np.sqrt(families * (families + 1) / (6 * 5))
    assert nemenyi_difference(families, 5) == pytest.approx(expected, rel=5e-4)


def test_the_test_of_two_models_equals_scipys_permutation_test():
    """Of chips with equally many pixels, swapping models is swapping the signs of differences."""
    rng = np.random.default_rng(0)
    a = rng.normal(0.75, 0.05, 10).round(3)
    b = (a - rng.normal(0.01, 0.03, 10)).round(3)
    for chips, draws in ((8, 9999), (10, 999)):  # 2**8 ways are all tried; 2**10 are drawn from
        found = paired_difference(matrices(a[:chips]), matrices(b[:chips]), ACCURACY, draws=draws)
        theirs = stats.permutation_test(
            (a[:chips], b[:chips]),
            lambda x, y, axis: (x - y).mean(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,
        )
        assert found.value == pytest.approx(theirs.statistic)
        assert found.p_value == pytest.approx(theirs.pvalue, abs=1e-12 if chips == 8 else 0.04)


def test_the_interval_of_two_models_is_paired():
    """BCa of the chips' differences, as scipy has it."""
    rng = np.random.default_rng(1)
    a = rng.uniform(0.4, 1, 40).round(3)
    b = (a - rng.exponential(0.03, 40)).round(3)
    found = paired_difference(matrices(a), matrices(b), ACCURACY, draws=40_000)
    theirs = stats.bootstrap((a - b,), np.mean, n_resamples=40_000, rng=0, method="BCa")
    assert found[1:3] == pytest.approx(
        tuple(theirs.confidence_interval), abs=0.05 * theirs.standard_error
    )
    alone = bootstrap_metric(matrices(a), ACCURACY)
    assert found.high - found.low < 0.3 * (alone.high - alone.low)


def families(rng, seeds, shift=0.0, blocks=20):
    """Accuracies of two families: alike in what blocks do, apart in what seeds do."""
    block = rng.normal(0, 0.1, (1, blocks))

    def family(mean):
        of_seed = rng.normal(0, 0.02, (seeds, 1)) if seeds > 1 else 0
        return matrices(mean + of_seed + block + rng.normal(0, 0.03, (seeds, blocks)))

    return family(0.6 + shift), family(0.6)


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_size_and_power(seeds):
    """Of families that are alike 5 % are found apart; of a shift, as many as by a t test.

    Blocks do the same to both families, so the difference has the noise of seeds alone, or of
    blocks' own where there is one seed.
    """
    shift = 0.03 if seeds == 1 else 0.06
    noise, degrees = (0.03**2 / 20, 19) if seeds == 1 else (0.02**2 + 0.03**2 / 20, seeds - 1)
    away = shift / np.sqrt(2 * noise / seeds)
    power = stats.nct.sf(stats.t.ppf(0.975, degrees), degrees, away)
    rng, p, held = np.random.default_rng(seeds), {0: [], shift: []}, []
    for mean, of_mean in p.items():
        for seed in range(150):
            a, b = (x.squeeze() for x in families(rng, seeds, mean))
            found = paired_difference(a, b, ACCURACY, draws=399, seed=seed)
            of_mean.append(found.p_value)
            held.append(found.low <= mean <= found.high)
    assert np.mean(np.array(p[0]) <= 0.05) <= 0.09  # of 150 trials at 5 %: 8.6 % is two sigma
    assert np.mean(np.array(p[0]) <= 0.5) == pytest.approx(0.5, abs=0.13)
    assert 0.3 < power < 0.95
    assert np.mean(np.array(p[shift]) <= 0.05) == pytest.approx(power, abs=0.12)
    assert np.mean(held) > 0.9


def test_seeds_that_differ_are_not_a_difference_of_families():
    """One lucky seed of three: the blocks agree that the models differ, the seeds do not."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.7, 0.01, (2, 3, 30))
    a[0] += 0.05
    one = paired_difference(matrices(a[0]), matrices(b[0]), ACCURACY)
    all_three = paired_difference(matrices(a), matrices(b), ACCURACY)
    assert one.p_value < 0.001
    assert all_three.p_value > 0.2
    assert all_three.low < 0 < all_three.high


def test_p_value_and_interval_agree():
    """Either says at 5 % whether there is a difference."""
    rng, decided = np.random.default_rng(2), set()
    for shift in np.linspace(0, 0.08, 9):
        found = paired_difference(*families(rng, 4, shift), "average_f1", draws=999)
        assert (found.p_value <= 0.05) == (not found.low <= 0 <= found.high)
        decided.add(found.p_value <= 0.05)
    assert decided == {True, False}


def test_the_other_way_round_is_the_negative():
    a, b = random_matrices(0, 4, 25), random_matrices(1, 4, 25)
    blocks = np.arange(25) // 2
    for x, y in ((a, b), (a[0], b[0])):
        there = paired_difference(x, y, "present_jaccard", blocks)
        back = paired_difference(y, x, "present_jaccard", blocks)
        assert back[:3] == pytest.approx((-there.value, -there.high, -there.low))
        assert back.p_value == pytest.approx(there.p_value, abs=0.03)


def test_the_same_family_twice_does_not_differ():
    a = random_matrices(0, 3, 25)
    assert paired_difference(a, a, "kappa") == (0, 0, 0, 1)
    assert paired_difference(a[0], a[0], "kappa") == (0, 0, 0, 1)


def test_value_is_the_difference_of_means_over_seeds():
    a, b = random_matrices(0, 3, 25), random_matrices(1, 3, 25)
    expected = bootstrap_runs(a, "average_f1").value - bootstrap_runs(b, "average_f1").value
    assert paired_difference(a, b, "average_f1").value == pytest.approx(expected)


def test_one_block_has_no_test():
    a, b = random_matrices(0, 3, 25), random_matrices(1, 3, 25)
    for x, y in ((a, b), (a[0], b[0])):
        value, *others = paired_difference(x, y, "average_f1", np.zeros(25, int))
        assert np.isfinite(value)
        assert np.isnan(others).all()


def test_refused():
    a = random_matrices(0, 3, 25)
    with pytest.raises(InputError, match="same seeds and chips"):
        paired_difference(a, a[:2], "kappa")
    with pytest.raises(InputError, match="two datasets"):
        friedman([[1, 2, 3]])


def test_the_p_value_of_normal_draws():
    """Of draws around 2 standard errors it is that of a z-test."""
    draws = 2 + np.random.default_rng(0).standard_normal(200_000)
    assert p_value_of_zero(draws) == pytest.approx(2 * stats.norm.sf(2), rel=0.03)
    assert p_value_of_zero(-draws) == p_value_of_zero(draws)
    assert p_value_of_zero(draws - 2) > 0.95
    assert np.isnan(p_value_of_zero(np.full(10, np.nan)))
