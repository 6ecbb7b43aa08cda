"""Overlapping windows' probabilities blended into one scene, a strip of rows at a time."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Float32, UInt8

from jaxcrop.mapping.windows import Windows


def probabilities(logits: Float[np.ndarray, "h w k"]) -> Float32[np.ndarray, "classes h w"]:
    """Softmax over the classes 1 to k-1, which come first in the result, one plane each.

    Class 0 (ignore) never trained, so its logit means nothing and takes no share.
    """
    plane = np.moveaxis(logits[..., 1:], -1, 0).astype(np.float32, order="C")
    plane -= plane.max(axis=0)
    np.exp(plane, out=plane)
    plane /= plane.sum(axis=0)
    return plane


def most_probable(
    strip: Float32[np.ndarray, "classes h w"],
) -> tuple[UInt8[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """The class of each pixel and its probability; class 0 where there is no data."""
    best = strip.max(axis=0)
    # Probabilities of a valid pixel add up to 1; those of a pixel without data are all 0.
    return np.where(best > 0, strip.argmax(axis=0) + 1, 0).astype(np.uint8), best


def taper(size: int, overlap: int) -> Float[np.ndarray, " size"]:
    """A window's weight along one axis: 1 inside, a raised cosine over `overlap` at both ends.

    Two neighbours' weights add up to 1; no weight is 0, so that the scene's border has one too.
    """
    ramp = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    return np.concatenate([ramp, np.ones(size - 2 * overlap), ramp[::-1]])


def axis_weights(
    starts: tuple[int, ...], size: int, overlap: int
) -> dict[int, Float32[np.ndarray, " size"]]:
    """Weights along one axis of the window at each start; at every pixel they add up to 1.

    The windows form a grid, so the weight of a pixel in a window is its row's times its column's.
    """
    shape = taper(size, overlap)
    total = np.zeros(starts[-1] + size)
    for start in starts:
        total[start : start + size] += shape
    return {start: (shape / total[start : start + size]).astype(np.float32) for start in starts}


def blend(
    windows: Windows,
    planes: Iterable[Float32[np.ndarray, "classes size size"] | None],
    classes: int,
) -> Iterator[tuple[int, Float32[np.ndarray, "classes rows width"]]]:
    """Weighted mean of the windows' `planes`, as strips `(first row, values)` from top to bottom.

    `planes` follow the order of `windows`; None stands for zeros. Only the rows of the windows in
    flight are held, `size` x width, and a strip is overwritten after the next one is asked for.
    The order of summation is fixed: the result does not depend on how the planes were batched.
    """
    size = windows.size
    row_weights = axis_weights(windows.rows, size, windows.overlap)
    column_weights = axis_weights(windows.columns, size, windows.overlap)
    strip = np.zeros((classes, min(size, windows.height), windows.width), np.float32)
    top = 0
    for (row, column), plane in zip(windows, planes, strict=True):
        finished = row - top
        if finished:
            yield top, strip[:, :finished]
            strip[:, :-finished] = strip[:, finished:]
            strip[:, -finished:] = 0
            top = row
        if plane is not None:
            target = strip[:, :, column : column + size]
            _, height, width = target.shape
            weight = np.outer(row_weights[row][:height], column_weights[column][:width])
            target += weight * plane[:, :height, :width]
    yield top, strip
