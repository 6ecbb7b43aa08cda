"""What labels are worth: how many a model needs, and what more of them would bring."""

from dataclasses import dataclass
from typing import NamedTuple

from jaxcrop.reports.study import Study
from jaxcrop.statistics.bootstrap import Interval

SHARE = 0.95
"""The share of the full score whose labels are counted."""

MORE = 100
"""The further labels whose gain is foretold."""


@dataclass(frozen=True)
class Need:
    """The labels at which a model reaches SHARE of its score with the most labels."""

    metric: str
    region: str
    model: str
    setting: str
    labels: Interval


@dataclass(frozen=True)
class Fit:
    """Error = asymptote + scale * labels ** -exponent, for a model in distribution.

    `limit` is the score with endless labels, `gain` what MORE labels than the most would bring;
    `budgets` are the least and the most labels that were fitted.
    """

    metric: str
    region: str
    model: str
    asymptote: float
    scale: float
    exponent: float
    limit: Interval
    gain: Interval
    budgets: tuple[float, float]


class Worth(NamedTuple):
    """What labels are worth to every model."""

    needs: tuple[Need, ...]
    fits: tuple[Fit, ...]


def labels_worth(study: Study) -> Worth:
    """What labels are worth to every model."""
    return Worth((), ())
