"""How chips reach the steps: streamed by the host, or cached on the device."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from jaxcrop.config import DeviceConfig
from jaxcrop.data.reading import (
    Batch,
    Chip,
    Spares,
    evaluation_batches,
    stacked,
    training_batches,
)
from jaxcrop.data.sampling import Sampling
from jaxcrop.mesh import local_rows, put_batch, put_everywhere
from jaxcrop.training.step import AT_ONCE, TrainState

Advance = Callable[[TrainState, range], Iterator[tuple[TrainState, jax.Array]]]
"""Takes the state through steps, counted from 0: yields it after one or more of them, with their
losses."""

_SHARE = 0.3
"""How much of an accelerator's free memory training chips may take."""


@dataclass(frozen=True)
class ImageFeed:
    """The training and validation chips of a run as images, which the host reads when asked for.

    The batches of `order` in the steps `plain` set the statistics.
    """

    chips: Sequence[Chip]
    validated: Sequence[Chip]
    order: Sampling
    plain: range
    mesh: Mesh
    workers: int = 0

    def training(self, sampling: Sampling, steps: range) -> Iterator[Batch]:
        """The training batches of `steps`, read ahead."""
        spares = None
        if not self.workers and self.mesh.devices.flat[0].platform != "cpu":  # one reads in place
            spares = Spares()
        batches = training_batches(
            self.chips,
            sampling,
            steps,
            rows=local_rows(self.mesh),
            workers=self.workers,
            spares=spares,
        )
        for step, batch in zip(steps, batches, strict=True):
            placed = put_batch(batch, self.mesh, sampling.size(step))
            yield placed
            if spares:
                jax.block_until_ready(placed)
                spares.give(batch.image)

    def statistics(self) -> Iterator[Batch]:
        """The batches that set the statistics, as they are: images are augmented on the device."""
        return self.training(self.order, self.plain) if self.plain else iter(())

    def validation(self, size: int) -> Iterator[tuple[tuple[str, ...], Batch]]:
        """The validation chips in order, with their ids."""
        return in_order(self.validated, size, self.mesh)


def in_order(
    chips: Sequence[Chip], size: int, mesh: Mesh
) -> Iterator[tuple[tuple[str, ...], Batch]]:
    """Every chip once with its id, `size` at a time; all-ignored chips fill up the last batch."""
    rows = local_rows(mesh)(size)
    for ids, batch in evaluation_batches(chips, size):
        yield ids, put_batch(Batch(*(part[rows] for part in batch)), mesh, size)


def streamed(train_step: Callable, batches: Iterator[Batch], key: PRNGKeyArray) -> Advance:
    """One program run for each step, on the next of `batches`."""

    def advance(state: TrainState, steps: range):
        before = None
        for _ in steps:
            state, loss = train_step(state, next(batches), key)
            jax.block_until_ready(before)  # its batch may lie where the next one will
            before = loss
            yield state, loss

    return advance


def streamed_together(
    few_steps: Callable, batches: Iterator[Batch], sampling: Sampling, key: PRNGKeyArray
) -> Advance:
    """One program run for each few steps on batches of one size, which `sampling` composes."""

    def advance(state: TrainState, steps: range):
        before = None
        for few in sampling.alike(steps, AT_ONCE):
            count = len(few)
            taken = list(islice(batches, count))
            filled = taken + taken[-1:] * (AT_ONCE - count)
            state, losses = few_steps(state, filled, count, key)
            jax.block_until_ready(before)  # its batches may lie where the next ones will
            before = losses
            yield state, losses[:count]

    return advance


def cached(
    cached_steps: Callable,
    chips: Sequence[Chip],
    sampling: Sampling,
    key: PRNGKeyArray,
    *,
    mesh: Mesh,
) -> Advance:
    """All chips on every device, and one program run for all steps whose batches are of one size.

    The batches are those that the host would send.
    """
    everything = put_everywhere(stacked(chips, range(len(chips)))[1], mesh)

    def advance(state: TrainState, steps: range):
        for alike in sampling.alike(steps, len(steps)):
            order = np.stack([sampling.batch(step) for step in alike]).astype(np.int32)
            order = put_everywhere(order, mesh)
            state, losses = cached_steps(state, everything, order, key)
            yield state, losses

    return advance


def wants_cache(chips: Sequence[Chip], config: DeviceConfig) -> bool:
    """Whether the chips are to lie on the device: as `config` says, or where there is room.

    A CPU gains nothing, since its own memory is the device's.
    """
    if config.device_cache != "auto":
        return config.device_cache == "on"
    device = jax.local_devices()[0]
    memory = device.memory_stats() if device.platform != "cpu" else None
    if not memory or "bytes_limit" not in memory:
        return False
    first = chips[0]
    needed = len(chips) * (first.image.nbytes + first.label.nbytes)
    return needed <= _SHARE * (memory["bytes_limit"] - memory.get("bytes_in_use", 0))
