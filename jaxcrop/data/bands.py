"""Sentinel-2 band names, and what a backbone wants to see of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxcrop.errors import InputError

SENTINEL2_BANDS = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
)  # fmt: skip
"""All 13 bands of an L1C product, in the order that every record of ours stores them."""

PUBLISHED_BANDS = (*(band for band in SENTINEL2_BANDS if band != "B8A"), "B8A")
"""The same bands as the files of the published chips hold them: B8A last (datasets_spec 5)."""


@dataclass(frozen=True)
class BandInput:
    """The input contract of a backbone: which bands, in which order, at which scale.

    A digital number (DN, reflectance x 10,000) of band `bands[i]` enters the network as
    `(DN - offset[i]) / divisor[i]`, then clipped to [0, 1] where `clip` is set.
    """

    bands: tuple[str, ...]
    offset: tuple[float, ...]
    divisor: tuple[float, ...]
    clip: bool

    def __post_init__(self):
        if not len(self.bands) == len(self.offset) == len(self.divisor):
            raise ValueError(
                f"{len(self.bands)} bands but {len(self.offset)} offsets and "
                f"{len(self.divisor)} divisors"
            )

    @classmethod
    def scaled(
        cls, bands: Sequence[str], divisor: float = 10_000.0, *, clip: bool = False
    ) -> "BandInput":
        """Bands of one scale, by default reflectances."""
        return cls(tuple(bands), (0.0,) * len(bands), (divisor,) * len(bands), clip)

    def indices(self, available: Sequence[str], source: str) -> tuple[int, ...]:
        """Position of each wanted band among `available`, the bands of file or dataset `source`.

        Raises InputError naming the bands that `source` lacks.
        """
        missing = [band for band in self.bands if band not in available]
        if missing:
            raise InputError(
                f"{source} lacks band {', '.join(missing)} (it has {', '.join(available)}): "
                "give data with these bands, or weights that do not use them"
            )
        return tuple(list(available).index(band) for band in self.bands)
