"""Which weights to use and what more labels bring, from the confusion matrices of probes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64

from jaxcrop.statistics.blocks import BLOCK_KM, block_ids
from jaxcrop.statistics.bootstrap import Interval, bootstrap_runs, evaluate, resample, run_draws
from jaxcrop.statistics.comparisons import Difference, holm, paired_difference
from jaxcrop.statistics.learning_curves import PowerLaw, fit_power_law, labels_needed
from jaxcrop.statistics.ranks import rank_stability

METRICS = {"overall_accuracy": "OA", "present_accuracy": "AA"}
"""Accuracy over pixels, and its average over the classes that occur in the labels."""

MORE = 100
"""Labelled chips more, whose gain is told."""

_ALPHA = 0.05
_FEW_BLOCKS = 10
_WIDE = 0.2
"""An interval wider than this answers nothing."""


@dataclass(frozen=True)
class Standing:
    """What a candidate scored: by metric at the largest budget, and by budget in the metric ranked.

    `first` is the chance that it is the best of all, were chips and seeds drawn anew; `behind` its
    distance to the leader, None for itself, with a p-value adjusted for all comparisons (Holm).
    """

    name: str
    kind: str
    scores: dict[str, Interval]
    curve: tuple[Interval, ...]
    first: float
    behind: Difference | None

    @property
    def tied(self) -> bool:
        """Whether it may well be as good as the leader."""
        return self.behind is None or not self.behind.p_value < _ALPHA


@dataclass(frozen=True)
class Recommendation:
    """Candidates in the order of their scores, and the leader's learning curve.

    `pool` is the number of training chips that the budgets were drawn from. `law` and `enough`, the
    labelled chips with which 95 % of the score at the largest budget is reached, are None where
    there is one budget.
    """

    metric: str
    budgets: tuple[int, ...]
    seeds: int
    test_chips: int
    test_blocks: int
    pool: int
    standings: tuple[Standing, ...]
    law: PowerLaw | None
    enough: Interval | None

    @property
    def gain(self) -> Interval | None:
        """What MORE labelled chips beyond the largest budget would bring the leader."""
        return self.law.gain(self.budgets[-1], MORE) if self.law else None

    @property
    def warnings(self) -> list[str]:
        """Sentences on what makes the answer less sure than its intervals say."""
        at, blocks = self.budgets[-1], self.test_blocks
        _, low, high = self.standings[0].scores[self.metric]
        cases = (
            (
                any(one.kind == "random" for one in self.standings),
                "random weights were never trained: their ranks say nothing of published weights",
            ),
            (
                blocks < 2,
                f"the {self.test_chips} test chips lie in one block of {BLOCK_KM:g} km: intervals "
                "take them for independent, and are too narrow",
            ),
            (
                2 <= blocks < _FEW_BLOCKS,
                f"the {self.test_chips} test chips lie in {blocks} blocks of {BLOCK_KM:g} km: "
                "intervals from fewer than ten are too narrow",
            ),
            (
                self.seeds < 3,
                f"--seeds {self.seeds} cannot tell how much it matters which chips are labelled",
            ),
            (
                at > self.pool / 2,
                f"{at} of {self.pool} training chips are labelled: seeds share most of them, and "
                "differ less than other chips would",
            ),
            (bool(self.law and self.law.assumed), self.law.assumed if self.law else ""),
            (
                high - low > _WIDE,
                f"the interval of the first, {low:.0%} to {high:.0%}, is too wide for an answer: "
                "label more chips",
            ),
        )
        return [sentence for holds, sentence in cases if holds]


def judge(
    per_chip: Mapping[str, Int64[np.ndarray, "budgets seeds chips k k"]],
    kinds: Mapping[str, str],
    *,
    budgets: Sequence[int],
    places: tuple[Float64[np.ndarray, " chips"], Float64[np.ndarray, " chips"]],
    pool: int,
    metric: str = "overall_accuracy",
    draws: int = 2000,
) -> Recommendation:
    """Rank candidates by their mean score over seeds at the largest budget.

    `per_chip` are the confusion matrices of each candidate, `kinds` what kind each is
    (`jaxcrop.probes.candidates.Candidate`), `places` longitude and latitude of the test chips,
    `pool` the number of chips that budgets are drawn from. Intervals and chances are over blocks of
    test chips and over seeds, both paired between candidates (`jaxcrop.statistics.bootstrap`).
    """
    blocks = block_ids(*places)
    count = len(set(blocks.tolist()))
    seeds, chips = next(iter(per_chip.values())).shape[1:3]
    of_chip = None if count < 2 else blocks
    names = sorted(per_chip, key=lambda name: -_means(per_chip[name][-1:], metric)[0])
    leader = names[0]

    last = np.stack([per_chip[name][-1] for name in names])
    values = evaluate(metric, last.sum(axis=2))
    drawn = evaluate(metric, resample(last, of_chip, draws=draws))
    drawn = run_draws(values, drawn, seed=0)
    known = len(names) > 1 and len(drawn) and np.isfinite(drawn).all()
    first = rank_stability(drawn).first if known else np.full(len(names), np.nan)
    behind = [
        paired_difference(per_chip[leader][-1], per_chip[name][-1], metric, of_chip)
        for name in names[1:]
    ]
    adjusted = holm(np.array([difference.p_value for difference in behind]))
    behind = [d._replace(p_value=float(p)) for d, p in zip(behind, adjusted, strict=True)]

    standings = tuple(
        Standing(
            name,
            kinds[name],
            {m: bootstrap_runs(per_chip[name][-1], m, of_chip, draws=draws) for m in METRICS},
            tuple(bootstrap_runs(runs, metric, of_chip, draws=draws) for runs in per_chip[name]),
            float(chance),
            distance,
        )
        for name, chance, distance in zip(names, first, [None, *behind], strict=True)
    )
    law = enough = None
    if len(budgets) > 1:
        scores = evaluate(metric, per_chip[leader].sum(axis=2))
        law = fit_power_law(np.repeat(budgets, seeds), 1 - scores.ravel())
        enough = labels_needed(np.array(budgets), scores.T)
    return Recommendation(
        metric,
        tuple(budgets),
        seeds,
        chips,
        count,
        pool,
        standings,
        law,
        enough,
    )


def _means(
    per_chip: Int64[np.ndarray, "budgets seeds chips k k"], metric: str
) -> Float[np.ndarray, " budgets"]:
    return evaluate(metric, per_chip.sum(axis=2)).mean(axis=1)


def as_json(found: Recommendation) -> dict[str, Any]:
    """The recommendation as JSON holds it; what is no number is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Interval | Difference):
            return {name: plain(part) for name, part in value._asdict().items()}
        return float(value) if np.isfinite(value) else None

    leader = found.standings[0]
    curve = None
    if found.law:
        law = found.law
        curve = {
            "of": leader.name,
            "asymptote": law.asymptote,
            "scale": law.scale,
            "exponent": law.exponent,
            "gain": {"more": MORE, **plain(found.gain)},
            "labels_for_95_percent": plain(found.enough),
        }
    return {
        "metric": found.metric,
        "budgets": found.budgets,
        "seeds": found.seeds,
        "test_chips": found.test_chips,
        "test_blocks": found.test_blocks,
        "ranking": [
            {
                "name": one.name,
                "kind": one.kind,
                **{metric: plain(value) for metric, value in one.scores.items()},
                "curve": {
                    str(budget): plain(value)
                    for budget, value in zip(found.budgets, one.curve, strict=True)
                },
                "chance_of_being_first": plain(one.first),
                "behind_the_first": None if one.behind is None else plain(one.behind),
                "tied_with_the_first": one.tied,
            }
            for one in found.standings
        ],
        "learning_curve": curve,
        "warnings": found.warnings,
    }
