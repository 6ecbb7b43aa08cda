import numpy as np
import pandas as pd
import pytest
from made_up_matrices import matrices, random_matrices
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from jaxcrop.errors import InputError
from jaxcrop.statistics.bootstrap import (
    bootstrap_metric,
    bootstrap_runs,
    evaluate,
    interval,
    resample,
    run_draws,
)
from jaxcrop.training.metrics import metrics

ACCURACY = "overall_accuracy"


def test_a_stack_has_the_metrics_of_its_matrices():
    stack = random_matrices(0, 4, 50)
    for name in metrics(stack[0, 0]):
        one_by_one = [[metrics(matrix)[name] for matrix in row] for row in stack]
        np.testing.assert_array_equal(evaluate(name, stack), one_by_one)
        as_function = evaluate(lambda matrix, name=name: metrics(matrix)[name], stack)
        np.testing.assert_array_equal(as_function, one_by_one)
    with pytest.raises(InputError, match="choose one of overall_accuracy"):
        evaluate("accuracy", stack)


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_intervals_equal_scipys_of_the_same_draws(method, level):
    sample = np.random.default_rng(1).exponential(size=25)  # skewed: the two methods differ
    theirs = stats.bootstrap(
        (sample,), np.mean, n_resamples=500, rng=0, method=method, confidence_level=level
    )
    without = np.array([np.delete(sample, i).mean() for i in range(25)])
    ours = interval(
        sample.mean(),
        theirs.bootstrap_distribution,
        without if method == "BCa" else None,
        level=level,
    )
    assert ours[1:] == pytest.approx(tuple(theirs.confidence_interval), rel=1e-12)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_a_metrics_interval_equals_scipys(method):
    """Of chips with equally many pixels the overall accuracy is the mean of the chips'."""
    accuracy = np.random.default_rng(2).beta(5, 1, 30).round(3)
    ours = bootstrap_metric(matrices(accuracy), ACCURACY, draws=40_000, method=method)
    name = {"bca": "BCa"}.get(method, method)
    theirs = stats.bootstrap((accuracy,), np.mean, n_resamples=40_000, rng=1, method=name)
    assert ours.value == pytest.approx(accuracy.mean())
    assert ours[1:] == pytest.approx(
        tuple(theirs.confidence_interval), abs=0.05 * theirs.standard_error
    )


def test_draws_of_blocks_have_the_closed_forms_mean_and_variance():
    """Blocks of three chips: the variance of a mean of block means, divided by n."""
    accuracy = np.random.default_rng(3).uniform(0.4, 0.9, 60).round(3)
    blocks = np.repeat(np.arange(20), 3)[np.random.default_rng(4).permutation(60)]
    drawn = metrics(resample(matrices(accuracy), blocks, draws=20_000))[ACCURACY]
    of_block = np.array([accuracy[blocks == block].mean() for block in range(20)])
    assert drawn.mean() == pytest.approx(accuracy.mean(), abs=0.001)
    assert drawn.std() == pytest.approx(of_block.std() / np.sqrt(20), rel=0.03)


def test_what_is_drawn_depends_on_seed_and_blocks_alone():
    one, other = random_matrices(0, 40), random_matrices(1, 40)
    blocks = np.arange(40) // 3
    together = resample(np.stack([one, other]), blocks, draws=50, seed=5)
    np.testing.assert_array_equal(together[:, 0], resample(one, blocks, draws=50, seed=5))
    np.testing.assert_array_equal(together[:, 1], resample(other, blocks * 7, draws=50, seed=5))
    assert (together != resample(np.stack([one, other]), blocks, draws=50, seed=6)).any()


def correlated(rng, blocks=30, chips=4):
    """Chips whose mistakes are nearly those of their block; the expected accuracy is 0.7."""
    return 0.7 + np.repeat(rng.normal(0, 0.1, blocks), chips) + rng.normal(0, 0.01, blocks * chips)


def test_blocks_hold_the_truth_where_chips_alone_do_not():
    """Four chips say no more than one: intervals of chips are half as wide as they must be."""
    of_chip = np.repeat(np.arange(30), 4)
    rng, held, widths = np.random.default_rng(0), [], []
    for seed in range(200):
        per_chip = matrices(correlated(rng))
        found = [
            bootstrap_metric(per_chip, ACCURACY, blocks, draws=400, seed=seed)
            for blocks in (of_chip, None)
        ]
        held.append([low <= 0.7 <= high for _, low, high in found])
        widths.append([high - low for _, low, high in found])
    by_block, by_chip = np.mean(held, axis=0)
    assert 0.9 <= by_block <= 0.98
    assert by_chip < 0.75
    wide, narrow = np.mean(widths, axis=0)
    assert wide / narrow == pytest.approx(2, rel=0.05)


def runs(rng, seeds, of_both=0.02, blocks=20):
    """Accuracies by seed and block about 0.7, of two crossed factors."""
    return (
        0.7
        + rng.normal(0, 0.03, (seeds, 1))
        + rng.normal(0, 0.05, (1, blocks))
        + rng.normal(0, of_both, (seeds, blocks))
    )


def test_variance_over_seeds_and_blocks_is_that_of_two_way_analysis_of_variance():
    accuracy = runs(np.random.default_rng(0), 12, of_both=0.08).round(3)
    values, drawn = accuracy.mean(axis=1), metrics(resample(matrices(accuracy), draws=20_000))
    draws = run_draws(values, drawn[ACCURACY], seed=0)
    seed, block = (part.ravel() for part in np.indices(accuracy.shape))
    table = pd.DataFrame({"y": accuracy.ravel(), "seed": seed, "block": block})
    squares = anova_lm(ols("y ~ C(seed) + C(block)", table).fit())
    of_seed, of_block, of_both = squares.sum_sq / squares.df
    # t with 11 degrees of freedom has 11/9 of the variance, a bootstrap of 20 blocks 19/20.
    expected = (of_seed * 11 / 9 + (of_block - of_both) * 19 / 20) / accuracy.size
    assert draws.var() == pytest.approx(expected, rel=0.03)
    assert draws.mean() == pytest.approx(accuracy.mean(), abs=0.001)
    np.testing.assert_allclose(  # stacked as alone
        run_draws(np.stack([values, -values]), np.stack([drawn[ACCURACY]] * 2, 1), seed=0)[:, 0],
        draws,
    )


def test_two_seeds_move_by_students_t():
    """Without any uncertainty of chips: the interval of a mean of two is that of t."""
    values = np.array([0.5, 0.6])
    draws = run_draws(values, np.broadcast_to(values, (200_000, 2)), seed=0)
    low, high = stats.t.interval(0.8, 1, 0.55, 0.1 / 2)
    assert np.quantile(draws, [0.1, 0.9]) == pytest.approx([low, high], rel=0.02)


def test_seeds_that_agree_add_nothing_and_one_seed_is_a_model_alone():
    per_chip = random_matrices(0, 40)
    alone = bootstrap_metric(per_chip, "present_f1")
    assert bootstrap_runs(per_chip[None], "present_f1") == alone
    same = bootstrap_runs(np.stack([per_chip] * 3), "present_f1", draws=5000)
    plain = bootstrap_metric(per_chip, "present_f1", draws=5000, method="percentile")
    assert same.value == pytest.approx(plain.value)
    assert same.high - same.low == pytest.approx(plain.high - plain.low)


def test_three_seeds_hold_the_truth_where_drawing_them_does_not():
    rng, held = np.random.default_rng(1), []
    for seed in range(200):
        per_chip = matrices(runs(rng, 3))
        ours = bootstrap_runs(per_chip, ACCURACY, draws=400, seed=seed)
        drawn = metrics(resample(per_chip, draws=400, seed=seed))[ACCURACY]
        picked = np.take_along_axis(drawn, rng.integers(3, size=drawn.shape), axis=1).mean(axis=1)
        ends = ours[1:], np.quantile(picked, [0.025, 0.975])
        held.append([low <= 0.7 <= high for low, high in ends])
    with_t, with_replacement = np.mean(held, axis=0)
    assert 0.91 <= with_t <= 0.99
    assert with_replacement < 0.9


def test_limits_stay_where_a_metric_can_be():
    found = bootstrap_runs(matrices([[0.99] * 8, [0.9] * 8]), ACCURACY)
    assert found.value == pytest.approx(0.945)
    assert found.high == 1  # t with one degree of freedom goes to 1.5
    assert bootstrap_runs(matrices([[0.01] * 8, [0.1] * 8]), ACCURACY).low == 0
    opposite = matrices(np.full((2, 8), 0.1))
    opposite[..., 2, 1], opposite[0, :, 2, 2], opposite[1, :, 2, 2] = 900, 100, 0
    assert bootstrap_runs(opposite, "kappa").low == pytest.approx(-1, abs=0.01)
    assert bootstrap_runs(opposite, lambda matrix: metrics(matrix)["kappa"]).low < -1


def test_what_cannot_be_known_is_not_a_number():
    per_chip = random_matrices(0, 6)
    for blocks, chips in ((np.zeros(6, int), per_chip), (None, per_chip[:1])):
        value, low, high = bootstrap_metric(chips, "average_f1", blocks)
        assert value == metrics(chips.sum(axis=0))["average_f1"]
        assert np.isnan([low, high]).all()
    assert np.isnan(bootstrap_metric(np.zeros((5, 6, 6), int), "average_f1")).all()
    assert np.isnan(bootstrap_runs(np.zeros((2, 5, 6, 6), int), "average_f1")).all()


def test_chips_without_labels_change_nothing():
    per_chip = random_matrices(0, 15)
    more = np.concatenate([np.zeros((5, 6, 6), int), per_chip])
    assert bootstrap_metric(more, "kappa") == bootstrap_metric(per_chip, "kappa")


def test_draws_without_a_value_are_left_out():
    """Kappa is undefined where a draw has one class, all right."""
    per_chip = matrices([1, 1, 1, 0.5])
    per_chip[3, 2, 2] = 500
    assert np.isnan(metrics(resample(per_chip))["kappa"]).any()
    for found in (
        bootstrap_metric(per_chip, "kappa"),
        bootstrap_runs(np.stack([per_chip, per_chip]), "kappa"),
    ):
        assert found.low < found.high <= 1
        assert found.low <= found.value <= found.high


def test_draws_that_are_all_alike_have_no_width():
    assert bootstrap_metric(matrices([0.8] * 9), ACCURACY) == (0.8, 0.8, 0.8)


def test_refused():
    with pytest.raises(InputError, match="one block each"):
        bootstrap_metric(random_matrices(0, 6), "kappa", np.zeros(5, int))
    with pytest.raises(InputError, match="level 95"):
        bootstrap_metric(random_matrices(0, 6), "kappa", level=95)
