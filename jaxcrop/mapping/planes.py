"""The network over windows: digital numbers in, probabilities of each class out."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, UInt16

from jaxcrop.crops import NUM_CLASSES
from jaxcrop.errors import InputError
from jaxcrop.mapping.blend import probabilities

LogitsFn = Callable[[UInt16[np.ndarray, "b size size band"]], Float[np.ndarray, "b size size k"]]
"""The network as the mapper sees it; a JAX array is as good a result as a NumPy one."""


class Window(NamedTuple):
    """What the network sees at once: digital numbers, which pixels have any, and where it lies."""

    dn: UInt16[np.ndarray, "size size band"]
    valid: Bool[np.ndarray, "size size"]
    where: str


def digital_numbers(
    raw: Integer[np.ndarray, "h w band"], offset: int, nodata: float | None = None
) -> tuple[UInt16[np.ndarray, "h w band"], Bool[np.ndarray, "h w"]]:
    """DN less `offset`, and which pixels are valid: not those whose every band is 0 or `nodata`."""
    valid = (raw != 0).any(axis=-1)
    if nodata is not None:
        valid &= (raw != nodata).any(axis=-1)
    dn = np.maximum(raw, 0).astype(np.uint16)
    return np.maximum(dn, offset) - np.uint16(offset), valid


def check_offset(offset: int) -> None:
    """Raise InputError where `offset` is no number of DN to subtract."""
    if not 0 <= offset <= np.iinfo(np.uint16).max:
        raise InputError(
            f"offset {offset} is not a number of DN to subtract: give 1000 for a scene of "
            "processing baseline 04.00 or later, else 0"
        )


def mirrored(
    dn: UInt16[np.ndarray, "h w band"], valid: Bool[np.ndarray, "h w"], size: int, where: str
) -> Window:
    """A window of `size` x `size` pixels, of which those given are the first; the rest mirror."""
    height, width = valid.shape
    if height < size or width < size:
        beyond = ((0, size - height), (0, size - width))
        dn, valid = np.pad(dn, (*beyond, (0, 0)), mode="reflect"), np.pad(valid, beyond)
    return Window(dn, valid, where)


def planes(
    logits_fn: LogitsFn,
    windows: Iterable[Window],
    total: int,
    *,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Float32[np.ndarray, "classes size size"] | None]:
    """Probabilities of the classes 1 and up in each of the `total` windows in turn.

    They are 0 where there is no data; None stands for a window without any. Windows go through
    `logits_fn` in batches that all have `batch_size` (so it compiles once), and the next batch is
    read and dispatched before the last one's logits are waited for. `progress` is called with the
    windows done and their total. Raises InputError where a probability is not finite.
    """
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} is not a number of windows: give 1 or more")
    windows, done, waiting = iter(windows), 0, None
    while batch := list(islice(windows, batch_size)):
        logits = None
        if any(window.valid.any() for window in batch):
            dn = np.zeros((batch_size, *batch[0].dn.shape), np.uint16)
            for slot, window in enumerate(batch):
                dn[slot] = window.dn
            logits = logits_fn(dn)
        if waiting is not None:
            yield from _finish(*waiting)
            done += batch_size
            if progress is not None:
                progress(done, total)
        waiting = batch, logits
    if waiting is not None:
        yield from _finish(*waiting)
    if progress is not None:
        progress(total, total)


def _finish(batch: list[Window], logits) -> Iterator[Float32[np.ndarray, "classes size size"]]:
    if logits is None:
        yield from [None] * len(batch)
        return
    for window, of_window in zip(batch, np.asarray(logits), strict=False):
        if of_window.shape != (*window.valid.shape, NUM_CLASSES):
            raise ValueError(
                f"logits_fn gave {of_window.shape} for one window, "
                f"not {(*window.valid.shape, NUM_CLASSES)}"
            )
        plane = probabilities(of_window)
        if not np.isfinite(plane).all():
            raise InputError(
                f"the network's output for the window {window.where} is not finite: its weights "
                "are damaged, give others"
            )
        yield plane * window.valid
