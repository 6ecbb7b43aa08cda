"""What more labels bring: power laws of the error, and label efficiency, both with uncertainty.

The error of a model falls with the number n of its labels about as a + b n**-c, where the asymptote
a is what no number of labels removes (Cortes et al. 1994, NIPS 6; Hestness et al. 2017, arXiv
1712.00409). Viering and Loog (2023, IEEE TPAMI 45) review it, and curves that are not like it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.optimize import isotonic_regression, least_squares

from jaxcrop.errors import InputError
from jaxcrop.statistics.bootstrap import DRAWS, Interval, run_draws

_EXPONENTS = np.geomspace(0.01, 4, 400)
"""Where exponents are looked for; the ends are their bounds."""

_USUAL_EXPONENT, _FACTOR = 0.3, 2.0
"""Prior of the exponent where budgets are few: two in three lie within the factor of the usual one.

Hestness et al. measured 0.07 to 0.35; learning theory has 1/2 and 1."""

_USUAL_NOISE, _NOISE_POINTS = 0.01, 2
"""Prior of the noise: a standard deviation between seeds, and how many points it counts for."""


@dataclass(frozen=True)
class PowerLaw:
    """error(labels) = asymptote + scale * labels**-exponent.

    `draws` are the three in each draw of a bootstrap. `assumed` is a sentence on what the data were
    too few to tell, or empty.
    """

    asymptote: float
    scale: float
    exponent: float
    draws: Float[np.ndarray, "draws 3"] = field(repr=False)
    assumed: str = ""

    def predict(self, labels: Float[np.ndarray, "*n"] | float, level: float = 0.95) -> Interval:
        """The mean error of models with so many labels; arrays where `labels` is one."""
        return self._interval(lambda laws: _errors(laws, np.asarray(labels, float)), level)

    def gain(self, at: float, more: float = 100, level: float = 0.95) -> Interval:
        """By how much the error falls with `more` labels beyond `at`."""
        ends = np.array([at, at + more], float)
        return self._interval(lambda laws: -np.diff(_errors(laws, ends), axis=-1)[:, 0], level)

    def labels_for(self, error: float, level: float = 0.95) -> Interval:
        """How many labels bring the error down to `error`; infinite where none can."""

        def needed(laws: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
            asymptote, scale, exponent = laws.T
            with np.errstate(divide="ignore", over="ignore"):
                ratio = np.maximum(error - asymptote, 0) / np.maximum(scale, 1e-300)
                return ratio ** (-1 / exponent)

        return self._interval(needed, level)

    def _interval(self, function: Callable[[np.ndarray], np.ndarray], level: float) -> Interval:
        value = function(np.array([[self.asymptote, self.scale, self.exponent]]))[0]
        low, high = _limits(function(self.draws), level)
        return Interval(value[()], low, high)


def fit_power_law(
    labels: Float[np.ndarray, " n"],
    error: Float[np.ndarray, " n"],
    *,
    weights: Float[np.ndarray, " n"] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> PowerLaw:
    """Fit a power law to the errors (1 - score) of models with so many labels, one point each.

    Repeat a budget for each of its seeds. Asymptote and scale are at least 0, the exponent between
    0.01 and 4; the fit is by weighted least squares from the best of 400 exponents. `weights` are
    inverse variances, up to a factor; by default those between the seeds of a budget, drawn half
    way to their mean over budgets, or equal ones where some budget has one seed.

    The draws are a parametric bootstrap: the law is fitted anew to itself with noise of Student's
    t, whose variance is that of the residuals and of a prior (0.01, counted as two points). Three
    parameters cannot be told from two or three budgets. The exponent is then drawn towards 0.3, in
    each draw towards another value (log-normal, a factor of 2), and `assumed` says so. The limits
    do not say whether the curve is a power law, and where the true asymptote is 0, the bound makes
    those of `gain` too narrow: of nominal 95 %, four in five held in simulations. Raises InputError
    for fewer than two budgets, budgets of 0 and values that are no numbers.
    """
    labels, error = _points(labels, error)
    _, budget, seeds = np.unique(labels, return_inverse=True, return_counts=True)
    within = (error - (np.bincount(budget, error) / seeds)[budget]) ** 2
    if weights is None:
        weights = np.ones(len(error))
        if seeds.min() > 1:
            own = np.bincount(budget, within) / (seeds - 1)
            weights = 1 / np.maximum(own + own.mean(), 1e-12)[budget]
    weights = np.asarray(weights, float) / np.mean(weights)

    usual, width = np.log(_USUAL_EXPONENT), np.log(_FACTOR)
    random = np.random.default_rng(seed)
    few = len(seeds) < 4
    if few:
        degrees, left = len(error) - len(seeds), weights @ within
    else:
        law = _least_squares(labels, error, weights, usual, 0)
        degrees, left = len(error) - 3, weights @ (_errors(law, labels) - error) ** 2
    degrees += _NOISE_POINTS
    variance = (left + _NOISE_POINTS * _USUAL_NOISE**2) / degrees
    pull = variance / width**2 if few else 0.0
    if few:
        law = _least_squares(labels, error, weights, usual, pull)
    deviation = np.sqrt(variance * degrees / random.chisquare(degrees, (draws, 1)) / weights)
    noisy = _errors(law, labels) + deviation * random.standard_normal((draws, len(error)))
    towards = usual + width * random.standard_normal((draws, 1))
    assumed = (
        f"{len(seeds)} budgets cannot tell three parameters: the exponent is drawn towards "
        f"{_USUAL_EXPONENT}, give or take a factor of {_FACTOR:g}"
    )
    return PowerLaw(
        *map(float, law), _on_grid(labels, noisy, weights, towards, pull), assumed if few else ""
    )


def labels_needed(
    labels: Float[np.ndarray, " budgets"],
    scores: Float[np.ndarray, "*seeds budgets"],
    share: float = 0.95,
    full: float | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Label efficiency: with how many labels the mean score reaches `share` of the `full` score.

    `full` is the score at the largest budget unless it is given. The mean over seeds is made
    monotone (isotonic regression) and interpolated in log(1 + labels), so that budget 0 may be
    among them; no law is fitted. The interval is over seeds, as in `bootstrap.run_draws`, and NaN
    for one seed. Where the smallest budget reaches the share, the answer is that budget: so many or
    fewer. Where none does, it is infinite: more than the largest. One budget is no answer, NaN,
    unless `full` is given. Raises InputError for budgets not in order and missing scores.
    """
    labels, scores = np.asarray(labels, float), np.atleast_2d(np.asarray(scores, float))
    if labels.shape != scores.shape[1:] or not (np.diff(labels, prepend=-1) > 0).all():
        raise InputError(
            f"scores of shape {scores.shape} and budgets {labels.tolist()} do not fit: give a "
            "column for each budget, from the smallest to the largest"
        )
    if np.isnan(scores).any():
        raise InputError("scores are missing: leave out budgets that some seed has not")
    if full is None and len(labels) < 2:
        return Interval(np.nan, np.nan, np.nan)

    def needed(curve: Float[np.ndarray, " budgets"]) -> float:
        curve = isotonic_regression(curve).x
        target = share * (curve[-1] if full is None else full)
        at = int((curve < target).sum())
        if at in (0, len(labels)):
            return labels[0] if at == 0 else np.inf
        x = np.log1p(labels[at - 1 : at + 1])
        return np.expm1(np.interp(target, curve[at - 1 : at + 1], x))

    value = float(needed(scores.mean(axis=0)))
    if len(scores) == 1:
        return Interval(value, np.nan, np.nan)
    curves = run_draws(scores.T, np.broadcast_to(scores.T, (draws, *scores.T.shape)), seed=seed)
    return Interval(value, *_limits(np.array([needed(curve) for curve in curves]), level))


def _limits(drawn: Float[np.ndarray, "draws ..."], level: float) -> tuple:
    """The central `level` of draws, some of which may be infinite: limits are draws themselves."""
    shares = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(drawn, shares, axis=0, method="nearest")
    return low[()], high[()]


def _points(labels: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, error = np.asarray(labels, float), np.asarray(error, float)
    if labels.shape != error.shape or labels.ndim != 1:
        raise InputError(
            f"{labels.shape} labels and {error.shape} errors do not fit: give one of each a point"
        )
    if not (np.isfinite(error).all() and np.isfinite(labels).all() and (labels > 0).all()):
        raise InputError(
            "a power law needs errors that are numbers at budgets above 0: drop others"
        )
    if len(np.unique(labels)) < 2:
        raise InputError("a learning curve needs two budgets at least: give scores of another")
    return labels, error


def _errors(
    laws: Float[np.ndarray, "*m 3"], labels: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "..."]:
    """The error at every number of labels by every law."""
    shape = laws.shape[:-1] + (1,) * labels.ndim
    asymptote, scale, exponent = (part.reshape(shape) for part in np.moveaxis(laws, -1, 0))
    return asymptote + scale * labels**-exponent


def _least_squares(
    labels: Float[np.ndarray, " n"],
    error: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    usual: float,
    pull: float,
) -> Float[np.ndarray, "3"]:
    """The law of the least weighted squares plus `pull` times (log(exponent) - usual)²."""

    def residuals(law: Float[np.ndarray, "3"]) -> Float[np.ndarray, " n+1"]:
        prior = np.sqrt(pull) * (np.log(law[2]) - usual)
        return np.append(np.sqrt(weights) * (_errors(law, labels) - error), prior)

    bounds = ([0, 0, _EXPONENTS[0]], [np.inf, np.inf, _EXPONENTS[-1]])
    start = _on_grid(labels, error[None], weights, np.array([[usual]]), pull)[0]
    found = least_squares(residuals, start, bounds=bounds, x_scale="jac", xtol=1e-12, ftol=1e-12)
    return found.x


def _on_grid(
    labels: Float[np.ndarray, " n"],
    error: Float[np.ndarray, "m n"],
    weights: Float[np.ndarray, " n"],
    usual: Float[np.ndarray, "m 1"],
    pull: float,
) -> Float[np.ndarray, "m 3"]:
    """The best laws with an exponent of the grid, for many rows of errors at once.

    Given the exponent, the others are linear (variable projection, Golub and Pereyra 1973).
    """
    x = labels ** -_EXPONENTS[:, None]
    ones, sx, sxx = weights.sum(), x @ weights, x**2 @ weights
    sy, syy, sxy = error @ weights, error**2 @ weights, (error * weights) @ x.T
    sy, syy = sy[:, None], syy[:, None]
    scale = (ones * sxy - sx * sy) / (ones * sxx - sx**2)
    asymptote = (sy - scale * sx) / ones
    scale, asymptote = (
        np.where(asymptote < 0, sxy / sxx, np.maximum(scale, 0)),
        np.where(scale < 0, sy / ones, np.maximum(asymptote, 0)),
    )
    squares = asymptote**2 * ones + 2 * asymptote * scale * sx + scale**2 * sxx
    loss = syy - 2 * (asymptote * sy + scale * sxy) + squares
    best = (loss + pull * (np.log(_EXPONENTS) - usual) ** 2).argmin(axis=1)
    rows = np.arange(len(best))
    return np.stack([asymptote[rows, best], scale[rows, best], _EXPONENTS[best]], axis=-1)
