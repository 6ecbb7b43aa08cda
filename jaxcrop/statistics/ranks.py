"""Ranks of families, and how far they can be relied on. The highest score has rank 1."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from jaxcrop.errors import InputError


class RankStability(NamedTuple):
    """What repetitions say about the order of families.

    `mean_ranks` and `first`, the share of repetitions in which a family is best, are by family;
    `wins[i, j]` is the share in which family i is better than j (the diagonal is 1/2). Ties are
    shared. `kendall_w` is 1 where all repetitions have one order and near 0 where they have none.
    """

    mean_ranks: Float[np.ndarray, " families"]
    first: Float[np.ndarray, " families"]
    wins: Float[np.ndarray, "families families"]
    kendall_w: float


def rank_stability(scores: Float[np.ndarray, "repetitions families"]) -> RankStability:
    """How stable the order of families is over repetitions: seeds, regions or bootstrap draws.

    Draws of several families by `bootstrap.resample` and `bootstrap.run_draws` are paired, and so
    fit. Raises InputError for scores that are missing and for fewer than two families.
    """
    of_repetition = ranks(scores)
    scores = np.asarray(scores, float)
    best = scores == scores.max(axis=1, keepdims=True)
    ahead = np.sign(scores[:, :, None] - scores[:, None, :])
    return RankStability(
        of_repetition.mean(axis=0),
        (best / best.sum(axis=1, keepdims=True)).mean(axis=0),
        (1 + ahead.mean(axis=0)) / 2,
        kendall_w(scores),
    )


def kendall_w(scores: Float[np.ndarray, "judges families"]) -> float:
    """Kendall's coefficient of concordance, corrected for ties (Kendall and Smith 1939).

    The share of the ranks' variance that lies between families; NaN where all scores are tied.
    """
    deviation = ranks(scores) - (np.shape(scores)[1] + 1) / 2
    total = (deviation**2).sum()
    between = len(deviation) * (deviation.mean(axis=0) ** 2).sum()
    return float(between / total) if total else float("nan")


def kendall_tau(scores: Float[np.ndarray, "budgets families"]) -> Float[np.ndarray, "b b"]:
    """Kendall's tau-b between the orders of families at every two budgets (or regions).

    1 is the same order, -1 the opposite; NaN where a budget has all families tied.
    """
    ordered = ranks(scores)
    return np.array([[stats.kendalltau(a, b).statistic for b in ordered] for a in ordered])


def ranks(scores: Float[np.ndarray, "n families"]) -> Float[np.ndarray, "n families"]:
    """The rank of each family in each row, ties at their mean."""
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or not scores.shape[0] or scores.shape[1] < 2:
        raise InputError(f"scores of shape {scores.shape} have no order: give rows of two families")
    if np.isnan(scores).any():
        raise InputError("scores are missing: give only rows in which every family has one")
    return stats.rankdata(-scores, axis=1)
