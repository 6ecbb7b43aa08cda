"""Tests of differences between families: on one region, over regions, and many at once."""

from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int64, Integer
from scipy import stats

from jaxcrop.errors import InputError
from jaxcrop.statistics.bootstrap import (
    Metric,
    block_sums,
    evaluate,
    interval,
    leave_one_out,
    resample,
    run_draws,
    weighted,
)
from jaxcrop.statistics.ranks import kendall_w, ranks

TEST_DRAWS = 9999
"""Enough for p-values that are small after correction for many comparisons."""


class Difference(NamedTuple):
    """A difference between its confidence limits, and the p-value of there being none."""

    value: float
    low: float
    high: float
    p_value: float


class SignedRank(NamedTuple):
    """The statistic of Wilcoxon's test and its two-sided p-value."""

    statistic: float
    p_value: float


class Friedman(NamedTuple):
    """Mean ranks of families over datasets (1 is best), and whether more than chance sets them.

    `statistic` is Friedman's chi-squared, corrected for ties, `p_value` that of Iman and
    Davenport's F. Two families whose mean ranks differ by `critical_difference` or more differ by
    Nemenyi's test.
    """

    mean_ranks: Float[np.ndarray, " families"]
    statistic: float
    p_value: float
    critical_difference: float


def paired_difference(
    per_chip_a: Integer[np.ndarray, "*seeds n k k"],
    per_chip_b: Integer[np.ndarray, "*seeds n k k"],
    metric: Metric,
    blocks: Int[np.ndarray, " n"] | None = None,
    *,
    draws: int = TEST_DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """The metric of `a` minus that of `b` on the same chips, with a paired interval and test.

    Give both the same chips, and the same seeds if several, in the same order: both are paired.
    With several seeds the difference is that of the means over seeds, and interval and p-value (the
    level at which the interval would touch 0) say what other seeds and other chips would give, as
    `bootstrap.run_draws` explains. One seed alone compares two trained models, not two families:
    its interval is BCa over blocks, its test swaps the models in random blocks (every way there is
    where blocks are few; p as in Phipson and Smyth 2010, doi 10.2202/1544-6115.1585). With fewer
    than two blocks, limits and p-value are NaN. Raises InputError for shapes that differ.
    """
    shapes = np.shape(per_chip_a), np.shape(per_chip_b)
    if shapes[0] != shapes[1] or len(shapes[0]) not in (3, 4):
        raise InputError(
            f"confusion matrices of shapes {shapes[0]} and {shapes[1]} cannot be paired: give both "
            "families the same seeds and chips"
        )
    both = np.stack([per_chip_a, per_chip_b]).reshape(2, -1, *shapes[0][-3:])
    sums = block_sums(both, blocks)
    values = evaluate(metric, sums.sum(axis=-3))
    difference = values[0] - values[1]
    drawn = evaluate(metric, resample(sums, draws=draws, seed=seed))
    drawn = run_draws(difference, drawn[:, 0] - drawn[:, 1], seed=seed)
    value, without = float(difference.mean()), None
    if len(difference) == 1:
        left = evaluate(metric, leave_one_out(sums[:, 0]))
        without, p_value = left[0] - left[1], _swapped(sums[:, 0], metric, value, draws, seed)
    else:
        p_value = p_value_of_zero(drawn)
    return Difference(*interval(value, drawn, without, level=level), p_value)


def holm(p_values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Adjusted p-values that bound the chance of any false finding (Holm 1979).

    Those that are NaN stay so and are not counted.
    """
    p_values, known = np.array(p_values, float), ~np.isnan(p_values)
    p = p_values[known]
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1)
    p_values[known] = adjusted
    return p_values


def benjamini_hochberg(p_values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Adjusted p-values that bound the share of false findings (Benjamini and Hochberg 1995).

    Those that are NaN stay so and are not counted.
    """
    p_values, known = np.array(p_values, float), ~np.isnan(p_values)
    if known.any():
        p_values[known] = stats.false_discovery_control(p_values[known])
    return p_values


def wilcoxon(a: Float[np.ndarray, " regions"], b: Float[np.ndarray, " regions"]) -> SignedRank:
    """Wilcoxon's signed-rank test of two families' scores, paired by region (Demšar 2006).

    Regions that one of them lacks (NaN) and ties are left out. Five regions cannot give a p-value
    below 1/16, six not below 1/32.
    """
    difference = np.subtract(a, b, dtype=float)
    difference = difference[~np.isnan(difference) & (difference != 0)]
    if not len(difference):
        return SignedRank(0.0, 1.0)
    found = stats.wilcoxon(difference)
    return SignedRank(float(found.statistic), float(found.pvalue))


def friedman(scores: Float[np.ndarray, "datasets families"], alpha: float = 0.05) -> Friedman:
    """Whether families rank alike over datasets; the highest score of a dataset has rank 1.

    Friedman's test with Iman and Davenport's F (1980), which is analysis of variance of the ranks,
    and Nemenyi's critical difference at `alpha`, as Demšar (2006, JMLR 7) recommends. Raises
    InputError for fewer than two datasets or families, and for scores that are missing.
    """
    of_dataset = ranks(scores)
    datasets, families = of_dataset.shape
    if datasets < 2:
        raise InputError("Friedman's test needs two datasets at least: give more, or use wilcoxon")
    agreement = kendall_w(scores)
    with np.errstate(divide="ignore"):
        f = np.float64((datasets - 1) * agreement) / (1 - agreement)
    degrees = (families - 1, (families - 1) * (datasets - 1))
    return Friedman(
        of_dataset.mean(axis=0),
        float(datasets * (families - 1) * agreement),
        float(stats.f.sf(f, *degrees)),
        nemenyi_difference(families, datasets, alpha),
    )


def nemenyi_difference(families: int, datasets: int, alpha: float = 0.05) -> float:
    """The least difference of two mean ranks that is significant at `alpha` (Nemenyi 1963).

    All pairs of families are compared at once.
    """
    quantile = stats.studentized_range.ppf(1 - alpha, families, np.inf)
    return float(quantile * np.sqrt(families * (families + 1) / (12 * datasets)))


def p_value_of_zero(drawn: Float[np.ndarray, " draws"]) -> float:
    """Two-sided p-value of no difference: twice the share of draws on the lesser side of 0.

    It is the level at which the draws' interval touches 0; NaN where there is no draw.
    """
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return float("nan")
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (beyond + 1) / (len(drawn) + 1)))


def _swapped(
    sums: Int64[np.ndarray, "2 blocks k k"], metric: Metric, value: float, draws: int, seed: int
) -> float:
    """Two-sided p-value: how often swapping models by block gives a difference as large."""
    count = sums.shape[1]
    if count < 2 or np.isnan(value):
        return float("nan")
    exact = 2**count <= draws
    if exact:
        swaps = np.array(list(product((0, 1), repeat=count)))
    else:
        swaps = np.random.default_rng(seed).integers(2, size=(draws, count))
    moved = weighted(swaps.astype(float), sums[1] - sums[0])
    totals = sums.sum(axis=1)
    differences = evaluate(metric, totals[0] + moved) - evaluate(metric, totals[1] - moved)
    # Rounding must not make the observed difference larger than itself.
    reached = (np.abs(differences) >= abs(value) - 1e-12).sum()
    return float(reached / len(swaps) if exact else (reached + 1) / (len(swaps) + 1))
