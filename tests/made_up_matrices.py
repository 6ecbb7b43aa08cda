"""Confusion matrices of chips with accuracies that a test chooses."""

import numpy as np


def matrices(accuracy, pixels=1000):
    """A matrix for each accuracy, of chips of equally many pixels, all labelled class 1."""
    right = np.rint(pixels * np.clip(accuracy, 0, 1)).astype(int)
    found = np.zeros((*np.shape(accuracy), 3, 3), int)
    found[..., 1, 1], found[..., 1, 2] = right, pixels - right
    return found


def random_matrices(seed, *shape, classes=6, empty=0.3):
    """Matrices of any entries, some classes unlabelled, some never predicted; row 0 is empty."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 500, (*shape, classes, classes))
    found *= rng.random((*shape, classes, 1)) > empty
    found *= rng.random((*shape, 1, classes)) > empty
    found[..., 0, :] = 0
    return found
