"""What a model must beat: the majority class, and each pixel's nearest class mean."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from jaxcrop.crops import IGNORE, NUM_CLASSES
from jaxcrop.data.reading import Chip


def baselines(
    train: Sequence[Chip], test: Sequence[Chip]
) -> dict[str, Int64[np.ndarray, "classes classes"]]:
    """Confusion matrices on `test` of the two baselines fitted on all labelled pixels of `train`.

    The nearest-mean classifier (scikit-learn's NearestCentroid) compares a pixel's digital numbers,
    without scaling, with the mean of each class.
    """
    totals = np.zeros((NUM_CLASSES, train[0].image.shape[-1]))
    counts = np.zeros(NUM_CLASSES, np.int64)
    for chip in train:
        pixels, labels = _labelled(chip)
        for label in np.unique(labels):
            chosen = pixels[labels == label]
            totals[label] += chosen.sum(0)
            counts[label] += len(chosen)
    present = np.flatnonzero(counts)
    means = totals[present] / counts[present, None]

    confusion = {name: np.zeros((NUM_CLASSES,) * 2, np.int64) for name in ("majority", "nearest")}
    for chip in test:
        pixels, labels = _labelled(chip)
        # |pixel - mean|^2 without the term that all means share
        distance = (means**2).sum(1) - 2 * pixels @ means.T
        np.add.at(confusion["nearest"], (labels, present[distance.argmin(1)]), 1)
        np.add.at(confusion["majority"], (labels, np.full(len(labels), counts.argmax())), 1)
    return {
        "majority class": confusion["majority"],
        "nearest mean per pixel": confusion["nearest"],
    }


def _labelled(chip: Chip) -> tuple[Float64[np.ndarray, "pixels b"], Int64[np.ndarray, " pixels"]]:
    labelled = chip.label != IGNORE
    return chip.image[labelled].astype(float), chip.label[labelled].astype(np.int64)
