"""Intervals by resampling blocks of chips, for one model and for several seeds of it.

Chips near each other share weather, fields and mistakes: resampling them one by one understates the
uncertainty, so whole blocks of the ground are drawn (Hall 1985, Stochastic Processes and their
Applications 20; Roberts et al. 2017, doi 10.1111/ecog.02881). `per_chip` is a confusion matrix for
each chip, rows the truth; `blocks` the block of each chip as `blocks.block_ids` numbers them, or
None where every chip is a block. A metric is a name that `jaxcrop.training.metrics.metrics` knows,
which is fast, or a function of one confusion matrix.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int64, Integer
from scipy.special import ndtr, ndtri

from jaxcrop.errors import InputError
from jaxcrop.training.metrics import metrics

Metric = str | Callable[[Int[np.ndarray, "k k"]], float]

DRAWS = 1000


class Interval(NamedTuple):
    """A value between its confidence limits; they are NaN where the data cannot give any."""

    value: float
    low: float
    high: float


def evaluate(metric: Metric, confusions: Integer[np.ndarray, "*n k k"]) -> Float[np.ndarray, "*n"]:
    """The metric of every confusion matrix of a stack. Raises InputError for an unknown name."""
    if isinstance(metric, str):
        values = metrics(confusions)
        if metric not in values:
            raise InputError(f"no metric is called {metric}: choose one of {', '.join(values)}")
        return np.asarray(values[metric])
    shape = confusions.shape[:-2]
    flat = confusions.reshape(-1, *confusions.shape[-2:])
    return np.array([metric(matrix) for matrix in flat], float).reshape(shape)


def resample(
    per_chip: Integer[np.ndarray, "*m n k k"],
    blocks: Int[np.ndarray, " n"] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Int64[np.ndarray, "draws *m k k"]:
    """Confusion matrices of bootstrap samples: as many blocks as there are, with replacement.

    Every leading axis (models, seeds) has the same blocks in a draw, and calls with the same seed
    and blocks have too: subtracting two models' metrics of a draw pairs them.
    """
    return _drawn(block_sums(per_chip, blocks), draws, seed)


def bootstrap_metric(
    per_chip: Integer[np.ndarray, "n k k"],
    metric: Metric,
    blocks: Int[np.ndarray, " n"] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
    method: Literal["bca", "percentile"] = "bca",
) -> Interval:
    """The metric over all chips, with the interval that resampling blocks gives it.

    It says what other chips of the region would give this one model. `bca` is Efron's (1987, doi
    10.1080/01621459.1987.10478410), corrected for bias and skewness; where that is not defined (all
    draws on one side of the value) it is the percentile interval. The limits are NaN with fewer
    than two blocks; with fewer than about ten they are too narrow.
    """
    sums = block_sums(per_chip, blocks)
    drawn = evaluate(metric, _drawn(sums, draws, seed))
    without = evaluate(metric, leave_one_out(sums)) if method == "bca" else None
    return interval(float(evaluate(metric, sums.sum(axis=-3))), drawn, without, level=level)


def bootstrap_runs(
    per_chip: Integer[np.ndarray, "seeds n k k"],
    metric: Metric,
    blocks: Int[np.ndarray, " n"] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean metric of several runs on the same chips, with an interval over runs and blocks.

    It says what other seeds and other chips would give: see `run_draws`. One run alone has the
    interval of `bootstrap_metric`, which knows nothing of other seeds.
    """
    if len(per_chip) == 1:
        return bootstrap_metric(per_chip[0], metric, blocks, draws=draws, seed=seed, level=level)
    sums = block_sums(per_chip, blocks)
    values = evaluate(metric, sums.sum(axis=-3))
    drawn = run_draws(values, evaluate(metric, _drawn(sums, draws, seed)), seed=seed)
    value, low, high = interval(float(values.mean()), drawn, level=level)
    if isinstance(metric, str):  # Student's t leaves the range that the metric has
        low, high = max(low, -1.0 if metric == "kappa" else 0.0), min(high, 1.0)
    return Interval(value, low, high)


def run_draws(
    values: Float[np.ndarray, "*m seeds"], drawn: Float[np.ndarray, "draws *m seeds"], *, seed: int
) -> Float[np.ndarray, "draws ..."]:
    """Draws of the mean over seeds: of its seeds from Student's t, of its blocks from `drawn`.

    `values` are each seed's score on all chips, `drawn` its scores in the draws of `resample`,
    where all seeds have the same blocks; for a difference between models, give differences. Drawing
    three or five seeds with replacement would understate how seeds differ, since no draw leaves
    their range. So the mean over seeds moves by its standard error times a t variate with seeds - 1
    degrees of freedom. The seeds' spread holds what blocks do to each seed by itself; what they do
    to all alike is added: the mean over seeds of `drawn`, scaled to its covariance between seeds
    (the variances of readers and of cases in Obuchowski and Rockette 1995, Communications in
    Statistics: Simulation and Computation 24). One seed alone has the draws of its blocks.
    """
    count = values.shape[-1]
    if count == 1 or not len(drawn):
        return drawn.mean(axis=-1)
    random = np.random.default_rng((seed, count))
    normal = random.standard_normal((len(drawn), count))
    chi = np.sqrt(random.chisquare(count - 1, len(drawn)) / (count - 1))
    weights = normal / (chi * np.sqrt(count * (count - 1)))[:, None]
    value = values.mean(axis=-1)
    moved = np.moveaxis((values - value[..., None]) @ weights.T, -1, 0)
    mean = drawn.mean(axis=-1)
    variance = _variance(mean)
    own = _variance(drawn - mean[..., None]).mean(axis=-1) / (count - 1)
    shared = np.sqrt(np.maximum(variance - own, 0) / np.where(variance > 0, variance, 1))
    return value + moved + shared * (mean - np.nanmean(mean, axis=0))


def interval(
    value: float,
    drawn: Float[np.ndarray, " draws"],
    without: Float[np.ndarray, " blocks"] | None = None,
    *,
    level: float = 0.95,
) -> Interval:
    """The central `level` of bootstrap draws, bias-corrected and accelerated if `without` is given.

    `without` are the values that lack one block each. Draws that are not numbers are left out.
    """
    if not 0 < level < 1:
        raise InputError(f"an interval of level {level} cannot be: give one between 0 and 1")
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(drawn):
        return Interval(value, np.nan, np.nan)
    shares = np.array([(1 - level) / 2, (1 + level) / 2])
    below = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    if without is not None and 0 < below < 1:
        away = without.mean() - without
        scale = (away**2).sum() ** 1.5
        acceleration = (away**3).sum() / (6 * scale) if scale > 0 else np.nan
        z = ndtri(below) + ndtri(shares)
        corrected = ndtr(ndtri(below) + z / (1 - acceleration * z))
        shares = corrected if np.isfinite(corrected).all() else shares
    low, high = np.quantile(drawn, shares)
    return Interval(value, float(low), float(high))


def block_sums(
    per_chip: Integer[np.ndarray, "*m n k k"], blocks: Int[np.ndarray, " n"] | None
) -> Int64[np.ndarray, "*m blocks k k"]:
    """The confusion matrix of each block that has any labelled pixel.

    Raises InputError where `blocks` is not one number for each chip.
    """
    per_chip = np.asarray(per_chip, np.int64)
    count = per_chip.shape[-3]
    blocks = np.arange(count) if blocks is None else np.asarray(blocks)
    if blocks.shape != (count,):
        raise InputError(f"{count} chips have blocks of shape {blocks.shape}: give one block each")
    number = np.unique(blocks, return_inverse=True)[1]
    sums = np.zeros((*per_chip.shape[:-3], number.max(initial=-1) + 1, *per_chip.shape[-2:]), int)
    np.add.at(np.moveaxis(sums, -3, 0), number, np.moveaxis(per_chip, -3, 0))
    labelled = np.moveaxis(sums, -3, -1).any(axis=tuple(range(sums.ndim - 1)))
    return sums[..., labelled, :, :]


def leave_one_out(sums: Int64[np.ndarray, "*m blocks k k"]) -> Int64[np.ndarray, "*m blocks k k"]:
    """The confusion matrices over all blocks but one."""
    return sums.sum(axis=-3, keepdims=True) - sums


def weighted(
    weights: Float[np.ndarray, "draws blocks"], sums: Int64[np.ndarray, "*m blocks k k"]
) -> Int64[np.ndarray, "draws *m k k"]:
    """Sums over blocks, each block as often as `weights` says; exact below 2⁵³ pixels."""
    total = np.tensordot(weights, sums.astype(float), axes=(1, sums.ndim - 3))
    return np.rint(total).astype(np.int64)


def _drawn(
    sums: Int64[np.ndarray, "*m blocks k k"], draws: int, seed: int
) -> Int64[np.ndarray, "draws *m k k"]:
    count = sums.shape[-3]
    if count < 2:  # nothing to draw from: no draws, and so no limits
        draws = 0
    random = np.random.default_rng(seed)
    picked = random.integers(max(count, 1), size=(draws, count)) + count * np.arange(draws)[:, None]
    times = np.bincount(picked.ravel(), minlength=draws * count).reshape(draws, count)
    return weighted(times.astype(float), sums)


def _variance(drawn: Float[np.ndarray, "draws ..."]) -> Float[np.ndarray, "..."]:
    """The variance over draws that are numbers."""
    known = ~np.isnan(drawn)
    count = np.maximum(known.sum(axis=0), 1)
    away = drawn - np.where(known, drawn, 0).sum(axis=0) / count
    return np.where(known, away**2, 0).sum(axis=0) / count
