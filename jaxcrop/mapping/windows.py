"""Which windows of a scene the network sees."""

from collections.abc import Iterator
from dataclasses import dataclass

from jaxcrop.errors import InputError

STRIDE = 32
"""Deepest stride of our networks: the side of a window is a multiple of it."""


@dataclass(frozen=True)
class Windows:
    """Overlapping `size` x `size` windows that cover a scene of `height` x `width` pixels.

    Neighbours share `overlap` pixels, except that the last window of a row or column is moved back
    to end at the scene's edge, so that it sees real pixels rather than mirrored ones. An axis that
    fits one window has one, which then reaches beyond the scene: the reader mirrors the rest.
    Iterating gives each window's top left corner, `(row, column)`, row by row.
    """

    height: int
    width: int
    size: int = 256
    overlap: int = 64

    def __post_init__(self):
        if self.size < STRIDE or self.size % STRIDE:
            raise InputError(f"window {self.size} is not a multiple of {STRIDE}: take 256, say")
        if not 0 <= self.overlap <= self.size // 2:
            raise InputError(
                f"overlap {self.overlap} does not suit windows of {self.size} pixels: "
                f"take 0 to {self.size // 2}"
            )

    @property
    def rows(self) -> tuple[int, ...]:
        return self._starts(self.height)

    @property
    def columns(self) -> tuple[int, ...]:
        return self._starts(self.width)

    def _starts(self, length: int) -> tuple[int, ...]:
        last = max(length - self.size, 0)
        return (*range(0, last, self.size - self.overlap), last)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((row, column) for row in self.rows for column in self.columns)
