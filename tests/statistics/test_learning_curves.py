import numpy as np
import pytest
from scipy import stats
from scipy.optimize import curve_fit, nnls
from sklearn.isotonic import IsotonicRegression

from jaxcrop.errors import InputError
from jaxcrop.statistics.learning_curves import _on_grid, fit_power_law, labels_needed

BUDGETS = np.array([10.0, 30, 100, 300, 900])


def law(labels, asymptote=0.1, scale=0.6, exponent=0.5):
    return asymptote + scale * labels**-exponent


def curve_fitted(labels, error, weights, **options):
    """The best of scipy's bounded fits from many starts, and its covariance."""
    bounds = ([0, 0, 0.01], [np.inf, np.inf, 4])
    fits = [
        curve_fit(
            law,
            labels,
            error,
            p0=(asymptote, 0.5, exponent),
            bounds=bounds,
            sigma=1 / np.sqrt(weights),
            ftol=1e-13,
            xtol=1e-13,
            **options,
        )
        for asymptote in (0.01, 0.1)
        for exponent in (0.05, 0.2, 0.8, 2)
    ]
    return min(fits, key=lambda fit: weights @ (law(labels, *fit[0]) - error) ** 2)


@pytest.mark.parametrize(
    "truth", [(0.1, 0.6, 0.5), (0, 0.43, 0.15), (0.2, 3, 1.2), (0.05, 0.3, 0.1)]
)
def test_a_power_law_is_found_again(truth):
    found = fit_power_law(BUDGETS, law(BUDGETS, *truth), draws=10)
    np.testing.assert_allclose(found.predict(BUDGETS).value, law(BUDGETS, *truth), atol=5e-6)
    assert found.predict(5000).value == pytest.approx(law(5000, *truth), abs=1e-4)
    assert (found.asymptote, found.exponent) == pytest.approx((truth[0], truth[2]), abs=0.01)
    assert not found.assumed


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("weighted", [False, True])
def test_the_fit_equals_scipys_best_of_many_starts(seed, weighted):
    rng = np.random.default_rng(seed)
    labels = np.repeat(BUDGETS, 3)
    error = law(labels, 0.05, 0.5, 0.3) + rng.normal(0, 0.02, 15)
    weights = rng.uniform(0.2, 5, 15) if weighted else np.ones(15)
    found = fit_power_law(labels, error, weights=weights, draws=1)
    theirs, _ = curve_fitted(labels, error, weights)
    ours = (found.asymptote, found.scale, found.exponent)
    loss = [weights @ (law(labels, *fit) - error) ** 2 for fit in (ours, theirs)]
    assert loss[0] <= loss[1] * (1 + 1e-6)
    np.testing.assert_allclose(law(BUDGETS, *ours), law(BUDGETS, *theirs), atol=2e-4)


@pytest.mark.parametrize("truth", [(0, 0.43, 0.15), (0.1, 0.6, 0.5), (0.3, 0, 1)])
def test_laws_of_many_draws_are_those_of_non_negative_least_squares(truth):
    """The least loss of all exponents, by scipy's active-set method."""
    rng, weights = np.random.default_rng(0), np.array([1, 2, 3, 4, 5.0])
    error = law(BUDGETS, *truth) + rng.normal(0, 0.03, (12, 5))
    found = _on_grid(BUDGETS, error, weights, np.zeros((12, 1)), 0.0)
    assert ((found[:, 0] == 0).any() and (found >= 0).all()) or truth[0]
    for row, fitted in zip(error, found, strict=True):
        ours = np.sqrt(weights) * (law(BUDGETS, *fitted) - row)
        basis = [np.stack([np.ones(5), BUDGETS**-c]).T for c in np.geomspace(0.01, 4, 400)]
        theirs = [nnls(np.sqrt(weights)[:, None] * x, np.sqrt(weights) * row)[1] for x in basis]
        assert np.linalg.norm(ours) == pytest.approx(min(theirs), rel=1e-6)


def test_weights_are_by_default_those_of_the_seeds():
    """Variances between seeds, half way to their mean; equal where a budget has one seed."""
    rng, labels = np.random.default_rng(0), np.repeat(BUDGETS, 4)
    error = law(labels) + rng.normal(0, 1, 20) * np.repeat([0.1, 0.05, 0.02, 0.01, 0.005], 4)
    variance = error.reshape(5, 4).var(axis=1, ddof=1)
    weights = np.repeat(1 / (variance / 2 + variance.mean() / 2), 4)
    by_default = fit_power_law(labels, error)
    np.testing.assert_allclose(
        by_default.draws, fit_power_law(labels, error, weights=7 * weights).draws, atol=1e-8
    )
    alike = fit_power_law(labels, error, weights=np.ones(20))
    assert abs(by_default.exponent - alike.exponent) > 0.01
    at_900 = [found.predict(900) for found in (by_default, alike)]
    assert at_900[0].high - at_900[0].low < 0.8 * (at_900[1].high - at_900[1].low)
    once = fit_power_law(labels[1:-3], error[1:-3])
    np.testing.assert_array_equal(
        once.draws, fit_power_law(labels[1:-3], error[1:-3], weights=np.ones(16)).draws
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_limits_are_those_of_linear_theory_where_noise_is_small(weighted):
    """Delta method on scipy's covariance, with t: the fit is nearly linear in its parameters."""
    rng = np.random.default_rng(0)
    labels = np.repeat(BUDGETS, 12)
    weights = np.repeat([1, 2, 5, 10, 40], 12) if weighted else np.ones(60)
    error = law(labels) + rng.normal(0, 0.01, 60) / np.sqrt(weights / weights.mean())
    found = fit_power_law(labels, error, weights=weights, draws=4000)
    fitted, covariance = curve_fitted(labels, error, weights)
    t = stats.t.ppf(0.975, 57)
    for at in (20.0, 100.0, 900.0, 2000.0):
        _, b, c = fitted
        slope = np.array([1, at**-c, -b * np.log(at) * at**-c])
        half = t * np.sqrt(slope @ covariance @ slope)
        value, low, high = found.predict(at)
        assert value == pytest.approx(law(at, *fitted), abs=1e-5)
        assert high - low == pytest.approx(2 * half, rel=0.12)


@pytest.mark.parametrize("truth", [(0, 0.43, 0.15), (0.1, 3, 1.5)], ids=["bound", "steep"])
def test_draws_are_about_the_fit(truth):
    """At the bound of the asymptote too; no prior draws a steep curve of many budgets away."""
    found = fit_power_law(BUDGETS, law(BUDGETS, *truth), weights=np.ones(5), draws=2000)
    for at in (10.0, 100.0, 900.0):
        middle = np.median(law(at, *found.draws.T))
        assert middle == pytest.approx(law(at, *truth), abs=0.004)
    assert np.median(found.draws[:, 2]) == pytest.approx(truth[2], rel=0.1)


@pytest.mark.parametrize("budgets", [BUDGETS, BUDGETS[[0, 2, 4]]], ids=["five", "three"])
@pytest.mark.parametrize("seeds", [1, 5])
def test_limits_hold_the_truth(budgets, seeds):
    """Noise is a tenth of the error, so smaller at large budgets."""
    rng, labels, held = np.random.default_rng(0), np.repeat(budgets, seeds), []
    truth = law(1800.0), law(900.0) - law(1000.0)
    for seed in range(60):
        error = law(labels) * rng.normal(1, 0.1, len(labels))
        found = fit_power_law(labels, error, draws=300, seed=seed)
        ends = found.predict(1800), found.gain(900)
        held.append([i.low <= true <= i.high for i, true in zip(ends, truth, strict=True)])
    assert (np.mean(held, axis=0) >= 0.85).all()


def test_few_budgets_have_the_exponent_of_the_prior_and_say_so():
    rng = np.random.default_rng(0)
    error = law(np.repeat(BUDGETS, 5)) + rng.normal(0, 0.005, 25)
    labels = np.repeat(BUDGETS, 5)
    few = np.isin(labels, [10, 100, 900])
    three, five = fit_power_law(labels[few], error[few]), fit_power_law(labels, error)
    assert three.assumed.startswith("3 budgets cannot tell three parameters")
    assert not five.assumed
    far = np.array([2000.0, 9000.0])
    widths = [found.predict(far).high - found.predict(far).low for found in (three, five)]
    assert (widths[0] > widths[1]).all()
    # Two points are on a law of any exponent: its draws are the prior's.
    two = fit_power_law([100.0, 900.0], [0.3, 0.2])
    assert np.median(two.draws[:, 2]) == pytest.approx(0.3, rel=0.15)
    assert np.std(np.log(two.draws[:, 2])) == pytest.approx(np.log(2), rel=0.25)
    assert two.predict(900).value == pytest.approx(0.2, abs=0.01)


def test_gain_and_labels_follow_from_the_curve():
    labels = np.repeat(BUDGETS, 3)
    error = law(labels) + np.random.default_rng(0).normal(0, 0.01, 15)
    found = fit_power_law(labels, error)
    ends = found.predict(np.array([900.0, 1100.0])).value
    gain = found.gain(900, more=200)
    assert gain.value == pytest.approx(ends[0] - ends[1])
    assert 0 <= gain.low <= gain.value <= gain.high
    needed = found.labels_for(0.15)
    assert found.predict(needed.value).value == pytest.approx(0.15)
    assert needed.low < needed.value < needed.high
    assert found.labels_for(0.0) == (np.inf, np.inf, np.inf)
    wide, narrow = found.predict(2000, level=0.95), found.predict(2000, level=0.5)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_an_error_that_does_not_fall_promises_nothing():
    found = fit_power_law(BUDGETS, np.array([0.3, 0.31, 0.29, 0.3, 0.3]))
    assert found.gain(900).value == pytest.approx(0, abs=1e-3)
    assert found.labels_for(0.2).high == np.inf


def test_the_same_seed_draws_the_same():
    error = law(BUDGETS) + 0.01 * np.sin(BUDGETS)
    one, again, other = (fit_power_law(BUDGETS, error, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.draws, again.draws)
    assert one.exponent == other.exponent
    assert (one.draws != other.draws).any()


@pytest.mark.parametrize(
    ("labels", "error", "match"),
    [
        ([10, 10], [0.3, 0.2], "two budgets"),
        ([0, 10], [0.3, 0.2], "above 0"),
        ([10, 20], [0.3, np.nan], "above 0"),
        ([10, 20, 30], [0.3, 0.2], "do not fit"),
    ],
)
def test_refused(labels, error, match):
    with pytest.raises(InputError, match=match):
        fit_power_law(labels, error)


def test_labels_needed_by_hand():
    """95 % of 0.8 is 0.76, three quarters of the way from 0.64 to 0.8 in log(1 + labels)."""
    needed = labels_needed([10, 100, 900], [0.5, 0.64, 0.8])
    assert np.log1p(needed.value) == pytest.approx(0.25 * np.log(101) + 0.75 * np.log(901))
    assert np.isnan(needed[1:]).all()
    assert labels_needed([10, 100, 900], [0.5, 0.64, 0.8], share=0.8).value == pytest.approx(100)
    assert labels_needed([10, 100], [0.5, 0.64], full=0.6, share=1).value == pytest.approx(
        np.expm1(np.interp(0.6, [0.5, 0.64], np.log1p([10, 100])))
    )


def test_labels_needed_where_budgets_cannot_say():
    seeds = np.array([[0.78, 0.79, 0.8], [0.79, 0.8, 0.81]])
    assert labels_needed([10, 100, 900], seeds) == (10, 10, 10)  # so many or fewer
    assert labels_needed([10, 100, 900], seeds, full=0.95) == (np.inf, np.inf, np.inf)
    assert labels_needed([0, 10, 100], [0.8, 0.8, 0.81]).value == 0
    assert np.isnan(labels_needed([100], [0.8])).all()
    assert labels_needed([100], [0.8], full=0.9).value == np.inf
    some = labels_needed([10, 100, 900], [[0.5, 0.6, 0.84], [0.5, 0.6, 0.88]], full=0.9)
    assert (some.value, some.high) == (pytest.approx(np.expm1(np.log1p(900)), rel=0.2), np.inf)
    assert some.low < 900


def test_a_curve_that_falls_is_made_monotone():
    scores = np.array([0.5, 0.7, 0.62, 0.75, 0.72])
    smooth = IsotonicRegression().fit_transform(np.arange(5), scores)
    target = 0.95 * smooth[-1]
    assert smooth[2] < target < smooth[3]
    expected = np.expm1(np.interp(target, smooth[2:4], np.log1p(BUDGETS[2:4])))
    assert labels_needed(BUDGETS, scores).value == pytest.approx(expected)


def test_labels_needed_hold_the_truth():
    """Five seeds: each has a level of its own, and noise at every budget."""
    truth = np.array([0.5, 0.6, 0.7, 0.78, 0.8])
    answer = labels_needed(BUDGETS, truth).value
    rng, held = np.random.default_rng(0), []
    for seed in range(150):
        scores = truth + rng.normal(0, 0.02, (5, 1)) + rng.normal(0, 0.01, (5, 5))
        found = labels_needed(BUDGETS, scores, draws=200, seed=seed)
        held.append(found.low <= answer <= found.high)
    assert 0.88 <= np.mean(held) <= 0.99


def test_labels_needed_refused():
    with pytest.raises(InputError, match="column for each budget"):
        labels_needed([10, 100], [0.5, 0.6, 0.7])
    with pytest.raises(InputError, match="smallest to the largest"):
        labels_needed([100, 10], [0.5, 0.6])
    with pytest.raises(InputError, match="missing"):
        labels_needed([10, 100], [[0.5, 0.6], [0.5, np.nan]])
