"""Reflectance of fields over the year, for drawing synthetic Sentinel-2 chips.

A field is a linear mixture of green canopy, dry canopy and soil whose shares follow the crop's
calendar. The end members are typical shapes set by hand: chlorophyll absorption in B02 and B04, the
red edge from B05 to B07, the plateau from B08 to B09, and water or cellulose absorption in B11 and
B12, with levels that were chosen with the median reflectance of labelled French parcels (PASTIS,
Sentinel-2 L2A) in view. They are no measurements; `tests/data/test_synthetic.py` compares them with
those medians.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# fmt: off
_PERCENT = {
    #               B01   B02   B03   B04   B05   B06   B07   B08   B8A   B09   B10   B11   B12
    "soil":       ( 8.0,  9.5, 13.0, 17.5, 19.5, 21.5, 23.0, 24.5, 25.5, 26.5,   0., 31.5, 25.5),
    "cereal":     ( 1.8,  2.4,  4.7,  2.5,  7.8, 27.5, 37.0, 39.5, 40.0, 40.5,   0., 13.5,  6.0),
    "maize":      ( 2.0,  2.8,  5.8,  3.6,  8.8, 27.0, 33.5, 35.0, 37.0, 37.5,   0., 18.0,  9.0),
    "soybean":    ( 1.8,  2.5,  5.2,  2.4,  8.0, 37.0, 48.5, 50.5, 52.0, 52.0,   0., 19.5,  8.2),
    "rice":       ( 2.2,  3.0,  5.5,  3.4,  8.2, 25.0, 31.5, 33.5, 34.5, 34.0,   0., 12.0,  5.5),
    "rape_bloom": ( 3.2,  4.6, 10.8,  8.4, 15.0, 38.5, 47.5, 49.5, 50.0, 50.0,   0., 16.0,  8.5),
    "meadow":     ( 2.1,  2.9,  5.8,  4.0, 10.6, 28.5, 34.5, 37.5, 38.5, 39.0,   0., 21.0, 10.2),
    "lucerne":    ( 2.0,  2.7,  5.8,  2.9,  9.2, 35.0, 44.5, 47.5, 48.0, 48.0,   0., 18.5,  8.5),
    "vine":       ( 2.6,  3.4,  6.8,  4.8, 11.2, 26.0, 31.0, 32.5, 33.5, 34.0,   0., 20.5, 11.2),
    "shrub":      ( 2.8,  3.6,  5.6,  5.8,  9.0, 16.0, 18.5, 20.0, 21.0, 22.0,   0., 20.0, 12.5),
    "trees":      ( 1.6,  2.0,  3.8,  2.4,  6.0, 17.5, 22.5, 24.5, 26.0, 27.0,   0., 12.0,  5.5),
    "straw":      ( 5.6,  7.6, 11.2, 15.0, 17.5, 23.5, 26.0, 28.5, 29.5, 30.0,   0., 28.0, 19.5),
    "stover":     ( 4.6,  6.0,  9.0, 12.0, 14.5, 18.0, 20.0, 22.0, 23.5, 24.5,   0., 27.0, 18.5),
    "water":      ( 4.5,  4.4,  4.6,  3.4,  3.0,  2.4,  2.3,  2.1,  2.0,  1.9,   0.,  1.2,  0.9),
    "road":       (11.0, 12.5, 14.5, 16.5, 17.5, 18.5, 19.0, 20.0, 20.5, 21.0,   0., 24.0, 21.5),
    "roof":       (17.0, 20.0, 22.5, 25.5, 26.5, 27.5, 28.0, 29.5, 29.0, 29.0,   0., 30.0, 28.0),
}
# fmt: on

SPECTRA = {name: np.float32(percent) / 100 for name, percent in _PERCENT.items()}
"""Surface reflectance by end member, bands in the order of SENTINEL2_BANDS; B10 sees no ground."""


@dataclass(frozen=True)
class Cover:
    """What grows on a field: its green and dry canopy, and its calendar.

    Days are days of the year in the northern mid-latitudes. Green cover grows from `low` to `high`
    (fractions of the ground) around day `rise`, within about four times `pace` days, and falls back
    around day `fall`; the dry canopy stands until day `harvest` and leaves the share `residue`.
    Texture within a field is relative variation of green cover: `patches` in patches of about 30 m
    (grazing, weeds), `swaths` along the direction of work (cuts, vine rows).
    """

    green: str
    dry: str
    rise: float
    fall: float
    harvest: float
    low: float
    high: float
    residue: float = 0.45
    pace: float = 10.0
    patches: float = 0.05
    swaths: float = 0.03
    flooded: bool = False

    def fractions(self, day: ArrayLike) -> tuple[NDArray, NDArray]:
        """Green and dry share of the ground on a day of the northern year (any array)."""
        middle = (self.rise + self.fall) / 2
        day = middle + (np.asarray(day, np.float32) - middle + 182.5) % 365 - 182.5
        grown = _step((day - self.rise) / self.pace)
        fallen = _step((day - self.fall) / 7)
        green = self.low + (self.high - self.low) * grown * (1 - fallen)
        standing = 1 - (1 - self.residue) * _step((day - self.harvest) / 3)
        dry = 0.1 * (1 - grown) + fallen * standing * (self.high - self.low)
        return green, np.minimum(dry, 1 - green)


def _step(x: NDArray) -> NDArray:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


COVERS = {
    "wheat": Cover("cereal", "straw", 72, 172, 202, 0.10, 0.95, swaths=0.05),
    "barley": Cover("cereal", "straw", 66, 152, 178, 0.10, 0.95, residue=0.35),
    "grazed_cereal": Cover("cereal", "straw", 66, 165, 200, 0.12, 0.84, patches=0.24, swaths=0.02),
    "maize": Cover("maize", "stover", 166, 262, 285, 0.04, 0.93, pace=11),
    "soybean": Cover("soybean", "stover", 174, 247, 268, 0.04, 0.95, pace=9),
    "cotton": Cover("lucerne", "stover", 186, 275, 300, 0.04, 0.88, swaths=0.05),
    "rice": Cover("rice", "straw", 182, 252, 275, 0.06, 0.92, flooded=True),
    "rapeseed": Cover("rape_bloom", "straw", 82, 148, 192, 0.30, 0.95, pace=7),
    "meadow": Cover("meadow", "straw", 70, 300, 340, 0.45, 0.90, patches=0.12),
    "lucerne": Cover("lucerne", "straw", 55, 310, 345, 0.30, 0.88, swaths=0.22),
    "vineyard": Cover("vine", "stover", 115, 300, 365, 0.22, 0.55, swaths=0.16),
    "weeds": Cover("meadow", "straw", 70, 170, 330, 0.18, 0.62, patches=0.38),
    "fallow": Cover("meadow", "straw", 80, 150, 170, 0.05, 0.16, residue=0.25, patches=0.3),
    "rooibos": Cover("shrub", "stover", 60, 320, 365, 0.30, 0.42, patches=0.25),
    "sugar_cane": Cover("maize", "straw", 60, 330, 350, 0.35, 0.88, swaths=0.05),
    "vegetables": Cover("lucerne", "stover", 160, 225, 240, 0.03, 0.75, swaths=0.1),
}
"""Covers by name; calendars are those of lowland France, the home of the PASTIS parcels."""


def field_reflectance(
    cover: Cover, day: float, soil: NDArray[np.float32] = SPECTRA["soil"]
) -> NDArray[np.float32]:
    """Surface reflectance (band,) of a uniform field of `cover` on a day of the northern year."""
    green, dry = cover.fractions(day)
    ground = ground_under(cover, float(green), soil)
    mixed = green * SPECTRA[cover.green] + dry * SPECTRA[cover.dry] + (1 - green - dry) * ground
    return mixed.astype(np.float32)


def ground_under(cover: Cover, green: float, soil: NDArray[np.float32]) -> NDArray[np.float32]:
    """What shows between the plants: soil, or in a growing paddy mostly water."""
    return 0.25 * soil + 0.75 * SPECTRA["water"] if cover.flooded and green > 0.15 else soil
