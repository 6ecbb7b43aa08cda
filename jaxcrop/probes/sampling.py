"""Which labelled pixels of a chip stand for all of them."""

from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from jaxcrop.crops import IGNORE


class SampledPixels(NamedTuple):
    """Some labelled pixels of a chip; where there are too few, the last weigh nothing.

    `weight` is how many pixels of its class a pixel stands for, so that weighted sums estimate sums
    over all labelled pixels; `place` counts pixels row after row.
    """

    place: Int32[np.ndarray, " pixels"]
    label: UInt8[np.ndarray, " pixels"]
    weight: Float32[np.ndarray, " pixels"]


def sample_pixels(label: UInt8[np.ndarray, "h w"], name: str, pixels: int) -> SampledPixels:
    """Draw up to `pixels` labelled pixels, as many of each class as the classes allow.

    The draw depends on the labels and `name` alone.
    """
    rng = np.random.default_rng(int.from_bytes(blake2b(name.encode(), digest_size=8).digest()))
    flat = label.ravel()
    (labelled,) = np.nonzero(flat != IGNORE)
    shuffled = rng.permutation(labelled)
    by_class = shuffled[np.argsort(flat[shuffled], kind="stable")]
    classes, start, count = np.unique(flat[by_class], return_index=True, return_counts=True)
    # One of each class, then a second of each, and so on, until there are enough.
    turn = np.arange(len(by_class)) - np.repeat(start, count)
    chosen = by_class[np.argsort(turn, kind="stable")[:pixels]]
    place, of_class, weight = (np.zeros(pixels, t) for t in ("int32", "uint8", "float32"))
    place[: len(chosen)] = chosen
    of_class[: len(chosen)] = flat[chosen]
    for crop, total in zip(classes, count, strict=True):
        drawn = of_class == crop
        weight[drawn] = total / max(drawn.sum(), 1)
    return SampledPixels(place, of_class, weight)
