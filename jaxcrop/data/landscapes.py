"""How the synthetic regions look: season, soil, fields, crop mix, air; a table for the drawing."""

from dataclasses import dataclass
from datetime import date

from jaxcrop.crops import IGNORE, OTHER

WILD = ("shrub", "trees", "water", "road", "roof")
"""Spectra of land that is no field, in the order of a landscape's `wild_codes`."""


@dataclass(frozen=True)
class Landscape:
    """How a synthetic region looks.

    `origin` is the north-west corner in metres of `crs`; the labels' `label_crs` has the same axes,
    `label_shift` metres to be added to a northing. Chips date from the `days` days after
    `first_day`; `calendar` days later the crops of the north stand alike. `crops` is (raw code,
    cover, share of the fields), `wild_codes` the raw code of each of WILD, `wild_crop` their
    class. Fields measure about `field` pixels, `aspect` times longer than wide, bent by `bend`
    pixels; `pivots` of the large ones are circles; `wild` is the share of land without fields,
    `surveyed` that of farms with labels. `soil` is brightness and redness, `haze` its mean
    thickness, `gain` the calibration error, `offset` the DN added to all bands.
    """

    crs: str
    label_crs: str
    label_shift: float
    origin: tuple[float, float]
    first_day: date
    days: int
    calendar: int
    crops: tuple[tuple[int, str, float], ...]
    wild_codes: tuple[int, ...]
    wild_crop: int
    field: float
    aspect: float
    bend: float
    pivots: float
    wild: float
    surveyed: float
    soil: tuple[float, float]
    haze: float
    gain: float
    offset: int = 0


LANDSCAPES = {
    "africa": Landscape(
        crs="EPSG:32734",
        label_crs="EPSG:32634",
        label_shift=-1e7,
        origin=(310_000, 6_350_000),
        first_day=date(2017, 8, 14),
        days=21,
        calendar=-125,
        crops=(
            (1, "lucerne", 0.10), (2, "meadow", 0.11), (3, "fallow", 0.11), (4, "vineyard", 0.10),
            (5, "weeds", 0.06), (6, "grazed_cereal", 0.13), (7, "wheat", 0.30),
            (8, "rapeseed", 0.05), (9, "rooibos", 0.04),
        ),
        wild_codes=(0, 0, 0, 0, 0),
        wild_crop=IGNORE,
        field=1100, aspect=1.4, bend=9, pivots=0.25, wild=0.18, surveyed=0.65,
        soil=(1.10, 0.55), haze=0.25, gain=1.00,
    ),
    "asia": Landscape(
        crs="EPSG:32652",
        label_crs="EPSG:32652",
        label_shift=0,
        origin=(350_000, 5_206_000),
        first_day=date(2019, 7, 20),
        days=14,
        calendar=0,
        crops=(
            (0, "rice", 0.15), (1, "maize", 0.42), (2, "soybean", 0.25), (3, "vegetables", 0.10),
            (3, "wheat", 0.08),
        ),
        wild_codes=(3, 3, 3, 3, 3),
        wild_crop=OTHER,
        field=420, aspect=3.5, bend=4, pivots=0.0, wild=0.15, surveyed=1.0,
        soil=(0.62, 0.05), haze=0.75, gain=0.98,
    ),
    "europe": Landscape(
        crs="EPSG:32631",
        label_crs="EPSG:32631",
        label_shift=0,
        origin=(426_000, 5_316_000),
        first_day=date(2021, 7, 5),
        days=10,
        calendar=0,
        crops=(
            (3301010101, "wheat", 0.30), (3301010600, "maize", 0.16),
            (3301160000, "soybean", 0.05), (3301010700, "rice", 0.04),
            (3301010401, "barley", 0.15), (3301060401, "rapeseed", 0.08),
            (3302000000, "meadow", 0.16), (3303060000, "vineyard", 0.06),
        ),
        wild_codes=(0, 0, 0, 0, 0),
        wild_crop=IGNORE,
        field=650, aspect=2.0, bend=10, pivots=0.0, wild=0.22, surveyed=0.9,
        soil=(0.95, 0.15), haze=0.40, gain=1.00,
    ),
    "north-america": Landscape(
        crs="EPSG:32615",
        label_crs="EPSG:32615",
        label_shift=0,
        origin=(417_000, 4_650_000),
        first_day=date(2023, 7, 10),
        days=18,
        calendar=3,
        crops=(
            (1, "maize", 0.36), (5, "soybean", 0.32), (24, "wheat", 0.10), (3, "rice", 0.04),
            (176, "meadow", 0.10), (36, "lucerne", 0.08),
        ),
        wild_codes=(176, 141, 111, 121, 122),
        wild_crop=OTHER,
        field=3000, aspect=1.0, bend=0, pivots=0.3, wild=0.10, surveyed=1.0,
        soil=(0.75, 0.10), haze=0.30, gain=1.01, offset=1000,
    ),
    "south-america": Landscape(
        crs="EPSG:32721",
        label_crs="EPSG:32721",
        label_shift=0,
        origin=(608_000, 8_562_000),
        first_day=date(2021, 1, 10),
        days=21,
        calendar=190,
        crops=(
            (1, "soybean", 0.48), (0, "maize", 0.18), (0, "cotton", 0.12), (0, "meadow", 0.14),
            (0, "sugar_cane", 0.08),
        ),
        wild_codes=(0, 0, 0, 0, 0),
        wild_crop=OTHER,
        field=4200, aspect=1.8, bend=6, pivots=0.1, wild=0.2, surveyed=1.0,
        soil=(0.90, 1.0), haze=0.55, gain=1.03,
    ),
    "india": Landscape(
        crs="EPSG:32644",
        label_crs="EPSG:32644",
        label_shift=0,
        origin=(304_000, 3_100_000),
        first_day=date(2021, 2, 5),
        days=28,
        calendar=95,
        crops=(
            (1, "wheat", 0.38), (2, "rapeseed", 0.20), (4, "fallow", 0.08),
            (6, "sugar_cane", 0.08), (9, "maize", 0.08), (15, "vegetables", 0.06),
            (16, "lucerne", 0.06), (36, "rice", 0.06),
        ),
        wild_codes=(0, 0, 0, 0, 0),
        wild_crop=IGNORE,
        field=160, aspect=1.6, bend=5, pivots=0.0, wild=0.14, surveyed=0.4,
        soil=(1.05, 0.30), haze=0.85, gain=0.99,
    ),
}  # fmt: skip
"""The synthetic regions. North America has the +1000 DN of processing baseline 04.00."""
