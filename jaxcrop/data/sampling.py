"""Which chips each training batch holds: a function of the seed and the step alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Literal

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Sampling:
    """The endless sequence of batches over `chips` chips.

    `shuffled`: every pass has an order of its own, sees each chip once, and batches run on across
    passes, so all have `batch_size` chips. `replacement`: every pass draws as many chips as there
    are, with replacement, and its last batch holds what is left, as torchgeo's random sampler does
    (datasets_spec 8.3). Either way a run that resumes at step k goes on with the batch it would
    have seen: the position in the data is the step, and needs no checkpoint of its own.
    """

    chips: int
    batch_size: int
    seed: int
    how: Literal["shuffled", "replacement"] = "shuffled"

    def steps(self, epochs: int) -> int:
        """The number of steps that `epochs` passes take."""
        if self.how == "replacement":
            return epochs * self._steps_in_pass
        return -(-epochs * self.chips // self.batch_size)

    def validation_after(self, step: int, every: int | None) -> int:
        """The next step of so many done that is validated: each `every`, or where a pass ends."""
        if every:
            return (step // every + 1) * every
        if self.how == "replacement":
            return self.steps(step // self._steps_in_pass + 1)
        return self.steps(step * self.batch_size // self.chips + 1)

    def batch(self, step: int) -> Int[np.ndarray, " n"]:
        """Positions of the chips of batch `step`, counted from 0."""
        if self.how == "replacement":
            number, place = divmod(step, self._steps_in_pass)
            drawn = self._pass(number)
            return drawn[place * self.batch_size : (place + 1) * self.batch_size]
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        numbers, places = positions // self.chips, positions % self.chips
        return np.concatenate(
            [self._pass(number)[places[numbers == number]] for number in np.unique(numbers)]
        )

    def size(self, step: int) -> int:
        """How many chips batch `step` has."""
        if self.how == "shuffled":
            return self.batch_size
        place = step % self._steps_in_pass
        return min(self.batch_size, self.chips - place * self.batch_size)

    def alike(self, steps: range, at_most: int) -> Iterator[list[int]]:
        """These steps in their order, at most so many together, whose batches are of one size."""
        for _, of_size in groupby(steps, key=self.size):
            alike = list(of_size)
            yield from (alike[at : at + at_most] for at in range(0, len(alike), at_most))

    @property
    def _steps_in_pass(self) -> int:
        """Of a pass with replacement, whose last batch holds what is left."""
        return -(-self.chips // self.batch_size)

    def _pass(self, number: int) -> Int[np.ndarray, " chips"]:
        return _drawn(self.chips, self.seed, int(number), self.how)


@lru_cache(maxsize=8)
def _drawn(chips: int, seed: int, number: int, how: str) -> Int[np.ndarray, " chips"]:
    rng = np.random.default_rng([seed, number])
    return rng.permutation(chips) if how == "shuffled" else rng.integers(chips, size=chips)
