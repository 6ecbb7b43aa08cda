"""The offset of Sentinel-2's digital numbers, and which pixels are cloudy or missing.

Since processing baseline 04.00 (25 January 2022) products carry 1,000 more than reflectance times
10,000, and so do older scenes that were processed again for Collection 1. The published chips of
North America carry it and those of the other regions do not (datasets_spec section 5).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OFFSET = 1000
"""The offset of baseline 04.00 and later."""

_FROM = "2022-01-25"
_CIRRUS = 950, 1200
"""Between these lies the darkest hundredth of B10 with the offset: it sees no ground, only clouds.

Below there is none. Above the whole image is cloud, which says nothing.
"""
_BRIGHT = 1400
"""The paper's threshold: where blue and green are both above it, a pixel is cloudy."""


class Offset(NamedTuple):
    """The offset that an image carries, and how it is known: metadata, year, or pixels."""

    value: int
    source: str


def find_offset(
    image: NDArray[np.uint16], bands: Sequence[str], day: str, stated: int | None
) -> Offset:
    """The offset of an image (height, width, band) taken on `day` (YYYY-MM-DD).

    What the product's metadata says counts, `stated` with ESA's sign (-1000). Else the day says,
    unless dark pixels contradict: B10, which sees no ground, is near the offset in its darkest
    hundredth; without B10, digital numbers below 900 disprove an offset.
    """
    if stated is not None:
        return Offset(-stated, "metadata")
    by_day = OFFSET if day >= _FROM else 0
    by_pixels = _by_pixels(image, bands, by_day)
    return Offset(by_pixels, "year" if by_pixels == by_day else "pixels")


def _by_pixels(image: NDArray[np.uint16], bands: Sequence[str], by_day: int) -> int:
    if "B10" in bands:
        cirrus = image[..., bands.index("B10")]
        cirrus = cirrus[cirrus > 0]
        darkest = np.percentile(cirrus, 1) if cirrus.size else np.inf
        if darkest > _CIRRUS[1]:
            return by_day
        return OFFSET if darkest >= _CIRRUS[0] else 0
    if by_day == 0:
        return 0
    below = (image > 0) & (image < 900)
    return 0 if below.sum() > 1e-3 * np.count_nonzero(image) else OFFSET


def remove_offset(image: NDArray[np.uint16], offset: int) -> NDArray[np.uint16]:
    """The image without its offset: missing pixels stay 0, all others are 1 at least."""
    if not offset:
        return image
    without = np.maximum(image, np.uint16(offset + 1))
    without -= np.uint16(offset)
    if not image.all():
        without[image == 0] = 0
    return without


def cloudy_share(image: NDArray[np.uint16], bands: Sequence[str]) -> float:
    """Share of pixels that are cloudy by the paper's rule, of an image without offset.

    That is, those whose blue and green are both above 1,400; NaN without these bands.
    """
    pair = _blue_and_green(image, bands)
    return float("nan") if pair is None else float((np.minimum(*pair) > _BRIGHT).mean())


def nodata_share(image: NDArray[np.uint16], bands: Sequence[str]) -> float:
    """Share of pixels that are missing by the paper's rule, blue and green both 0."""
    pair = _blue_and_green(image, bands)
    return float("nan") if pair is None else float((np.maximum(*pair) == 0).mean())


def _blue_and_green(image: NDArray, bands: Sequence[str]) -> tuple[NDArray, NDArray] | None:
    if "B02" not in bands or "B03" not in bands:
        return None
    return image[..., bands.index("B02")], image[..., bands.index("B03")]
