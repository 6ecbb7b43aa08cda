"""The published sets of weights: what they take as input, where they are, under which licence.

`catalogue.csv` beside this file has one row per file. Sources: weights_spec 2.1-2.3 (SSL4EO-S12),
3 (SatlasPretrain) and 4 (ImageNet); torchgeo's tables of weights for SSL4EO-L and the licences; the
readme files of SSL4EO-S12 and FG-MAE for their full checkpoints.

Rows of one family and architecture stand in order of preference: the first is what the family
stands for. `input_size` is the side, in pixels, of the images that the publisher feeds; `images` is
the number of them that a multi-image model takes the maximum over.

Left out are the files that only Google Drive has, for it serves no stable address: SSL4EO-S12's own
MoCo, DINO and Data2vec checkpoints and its full MAE ViT-S/16 (torchgeo re-hosts all but Data2vec,
and without the projection heads). Sentinel-1, aerial and SatlasPretrain's Landsat files are out of
scope. SatlasPretrain's files had other names and hosts before; those listed are the current ones.
"""

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxcrop.data.bands import SENTINEL2_BANDS, BandInput
from jaxcrop.errors import InputError


def _landsat(sensor: str, names: str) -> BandInput:
    """8-bit values; band names begin with the sensor, for each numbers its bands differently."""
    return BandInput.scaled([f"{sensor}.{name}" for name in names.split()], 255.0)


_RGB = ("B04", "B03", "B02")

INPUTS = {
    "sentinel2": BandInput.scaled(SENTINEL2_BANDS),
    "sentinel2-rgb": BandInput.scaled(_RGB),
    "softcon": BandInput(
        SENTINEL2_BANDS,
        offset=(
            1612.9, 1397.6, 1322.3, 1373.1, 1561.0, 2108.4, 2390.7, 2318.7, 2581.0, 837.7, 22.0,
            2195.2, 1537.4,
        ),
        divisor=(
            791.0, 854.3, 878.7, 1144.9, 1127.5, 1164.2, 1276.0, 1249.5, 1345.9, 577.5, 47.5,
            1340.0, 1142.9,
        ),
        clip=False,
    ),
    "satlas": BandInput(
        (*_RGB, "B05", "B06", "B07", "B08", "B11", "B12"),
        offset=(0.0,) * 9,
        divisor=(3558.0,) * 3 + (8160.0,) * 6,
        clip=True,
    ),
    "satlas-rgb": BandInput.scaled(_RGB, 3558.0, clip=True),
    "imagenet": BandInput.scaled(SENTINEL2_BANDS),
    "tm-toa": _landsat("TM", "B1 B2 B3 B4 B5 B6 B7"),
    "etm-toa": _landsat("ETM", "B1 B2 B3 B4 B5 B6_VCID_1 B6_VCID_2 B7 B8"),
    "etm-sr": _landsat("ETM", "SR_B1 SR_B2 SR_B3 SR_B4 SR_B5 SR_B7"),
    "oli-tirs-toa": _landsat("OLI_TIRS", "B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11"),
    "oli-sr": _landsat("OLI", "SR_B1 SR_B2 SR_B3 SR_B4 SR_B5 SR_B6 SR_B7"),
}  # fmt: skip
"""What a network is fed, by the name that the catalogue gives it.

- sentinel2: weights_spec 2.1, also for MAE, FG-MAE, DINO and DeCUR; the RGB models take B04, B03,
  B02 in this order.
- softcon: mean and standard deviation by band, as torchgeo gives them (weights_spec 2.1).
- satlas: SatlasPretrain reads red, green and blue from the 8-bit TCI product and the rest as
  DN / 8160. The paper feeds DN throughout, hence 3558, which is about the DN of TCI's 255.
  torchgeo's own transform divides those three by 255, since it expects the TCI product, and does
  not clip: fed with DN, as our data are, it would make them 14 times too large (weights_spec 0.1).
- imagenet: what the paper feeds, no ImageNet mean and deviation; the file's three-channel stem is
  extended to the 13 bands (`jaxcrop.weights.stem`).
- tm, etm, oli: the 8-bit images of SSL4EO-L, as torchgeo's transform scales them.
"""

FAMILY_INPUTS = {"ssl4eo": "sentinel2", "satlas": "satlas", "imagenet": "imagenet"}
"""The whole Sentinel-2 input of each family that has one."""


@dataclass(frozen=True)
class PublishedWeights:
    """One published file, a row of the catalogue.

    `sha256` holds the first 8 hex digits, which the publisher puts into the file's name, or is
    empty where no hash is published.
    """

    name: str
    family: str
    architecture: str
    input: str
    input_size: int
    images: int
    method: str
    licence: str
    sha256: str
    url: str

    @property
    def band_input(self) -> BandInput:
        """The bands to feed, in order, and their scale."""
        return INPUTS[self.input]

    @property
    def in_channels(self) -> int:
        """The channels of the file's own stem: an ImageNet file's takes three."""
        return 3 if self.family == "imagenet" else len(self.band_input.bands)

    @property
    def file_name(self) -> str:
        """Last part of the URL."""
        return self.url.rpartition("/")[2]


def _read_catalogue() -> dict[str, PublishedWeights]:
    with Path(__file__).with_name("catalogue.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {"input_size": int(row["input_size"]), "images": int(row["images"])}
    return {row["name"]: PublishedWeights(**row) for row in rows}


CATALOGUE = _read_catalogue()
"""Every published set by name."""


def published(name: str) -> PublishedWeights:
    """The entry called `name`; raises InputError with the names that come nearest."""
    if name not in CATALOGUE:
        nearest = difflib.get_close_matches(name, CATALOGUE, n=3, cutoff=0)
        raise InputError(
            f"no published weights are called {name}: `python -m weights_convert list` prints the "
            f"names; the nearest are {', '.join(nearest)}"
        )
    return CATALOGUE[name]


def default_weights(family: str, architecture: str) -> PublishedWeights:
    """The set that a family and architecture stand for: the paper's, or the one most like it.

    MoCo where there is one, else DINO, else MAE; SatlasPretrain's own single-image files of nine
    bands; torchvision's first ImageNet weights, else timm's. Raises InputError listing the
    architectures that the family has.
    """
    of_family = [entry for entry in CATALOGUE.values() if entry.family == family]
    for entry in of_family:
        if entry.architecture == architecture:
            return entry
    if not of_family:
        families = dict.fromkeys(entry.family for entry in CATALOGUE.values())
        raise InputError(f"no weights of {family} are published: choose {', '.join(families)}")
    architectures = dict.fromkeys(entry.architecture for entry in of_family)
    raise InputError(
        f"{family} has no weights of {architecture}: choose {', '.join(architectures)}, or "
        "--weights random"
    )


def band_input(family: str, bands: Sequence[str] | None = None) -> BandInput:
    """The Sentinel-2 input of `family` reduced to `bands`, each scaled as the family scales it.

    Raises InputError for a family without such an input, and names the bands for which the family
    has no scale.
    """
    if family not in FAMILY_INPUTS:
        raise InputError(f"{family} takes no Sentinel-2 bands: choose {', '.join(FAMILY_INPUTS)}")
    whole = INPUTS[FAMILY_INPUTS[family]]
    if bands is None:
        return whole
    unknown = [band for band in bands if band not in whole.bands]
    if unknown:
        raise InputError(
            f"{family} has no scale for band {', '.join(unknown)}: choose among "
            f"{', '.join(whole.bands)}"
        )
    indices = [whole.bands.index(band) for band in bands]
    return BandInput(
        tuple(bands),
        tuple(whole.offset[index] for index in indices),
        tuple(whole.divisor[index] for index in indices),
        whole.clip,
    )
