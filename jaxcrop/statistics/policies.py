"""How much of an average score is the classes that the region does not have."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer

from jaxcrop.training.metrics import counted_classes, per_class


class MovingDenominator(NamedTuple):
    """What the paper's average of a score is divided by, for one confusion matrix or each of many.

    `counted` classes enter it, of which `absent` occur in no label and enter as 0, because a pixel
    was predicted as one. `factor` is (counted - absent) / counted: the paper's average is the
    average over present classes times it.
    """

    counted: Int[np.ndarray, "*n"] | int
    absent: Int[np.ndarray, "*n"] | int
    factor: Float[np.ndarray, "*n"] | float


def moving_denominator(
    confusion: Integer[np.ndarray, "*n k k"], score: str = "accuracy"
) -> MovingDenominator:
    """The denominator of `average_{score}` of `jaxcrop.training.metrics.metrics`.

    torchmetrics' macro average, which the paper used, drops a class only if it is neither labelled
    nor predicted (`_adjust_weights_safe_divide`, version 1.9). Of the scores, only the Jaccard
    index never counts class 0. The factor is NaN where no class counts.
    """
    counts = counted_classes(confusion, score)
    present = per_class(confusion)["truth"] > 0
    counted = counts.sum(axis=-1)
    absent = (counts & ~present).sum(axis=-1)
    factor = np.where(counted > 0, (counted - absent) / np.maximum(counted, 1), np.nan)
    return MovingDenominator(counted[()], absent[()], factor[()])
