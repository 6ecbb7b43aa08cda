"""The published ResNet-50 weights: what they take as input, where they are, under which licence.

Sources: weights_spec 2.1-2.2 (SSL4EO-S12), 3.1 and 3.3 (SatlasPretrain), 4 (ImageNet).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxcrop.data.bands import SENTINEL2_BANDS, BandInput
from jaxcrop.errors import InputError

RGB = ("B04", "B03", "B02")

BAND_INPUT = {
    "ssl4eo": BandInput(SENTINEL2_BANDS, (10_000.0,) * 13, clip=False),
    "satlas": BandInput(
        (*RGB, "B05", "B06", "B07", "B08", "B11", "B12"),
        (3558.0,) * 3 + (8160.0,) * 6,
        clip=True,
    ),
    "imagenet": BandInput(SENTINEL2_BANDS, (10_000.0,) * 13, clip=False),
}
"""What the paper feeds each family (datasets_spec 8.5).

ImageNet's three-channel stem is extended to the 13 bands (`jaxcrop.weights.stem`).
"""


def band_input(family: str, bands: Sequence[str] | None = None) -> BandInput:
    """The input of `family` reduced to `bands`, each scaled as the family scales it.

    Raises InputError naming the bands for which the family has no scale.
    """
    whole = BAND_INPUT[family]
    if bands is None:
        return whole
    scale = dict(zip(whole.bands, whole.divisor, strict=True))
    unknown = [band for band in bands if band not in scale]
    if unknown:
        raise InputError(
            f"{family} has no scale for band {', '.join(unknown)}: choose among "
            f"{', '.join(whole.bands)}"
        )
    return BandInput(tuple(bands), tuple(scale[band] for band in bands), whole.clip)


def file_input(family: str, in_channels: int) -> BandInput:
    """The input of a file of `family` whose stem takes `in_channels` channels.

    A file of fewer channels than the family has bands was trained on red, green and blue; an
    ImageNet stem is extended to all the bands.
    """
    whole = BAND_INPUT[family]
    reduced = family != "imagenet" and in_channels < len(whole.bands)
    return band_input(family, RGB if reduced else None)


@dataclass(frozen=True)
class PublishedWeights:
    """One published file: `sha256` holds the first 8 hex digits, `input_size` pixels per side."""

    name: str
    family: str
    architecture: str
    in_channels: int
    input_size: int
    licence: str
    url: str
    sha256: str

    @property
    def band_input(self) -> BandInput:
        """The bands to feed, in order, and their scale."""
        return file_input(self.family, self.in_channels)

    @property
    def file_name(self) -> str:
        """Last part of the URL."""
        return self.url.rpartition("/")[2]


def _ssl4eo(name: str, in_channels: int, path: str, licence: str = "CC-BY-4.0"):
    return PublishedWeights(
        name=f"ssl4eo-resnet50-{name}",
        family="ssl4eo",
        architecture="resnet50",
        in_channels=in_channels,
        input_size=224,
        licence=licence,
        url=f"https://hf.co/torchgeo/{path}.pth",
        sha256=path[-8:],
    )


def _satlas(name: str, in_channels: int, sha256: str):
    commit = "081d6607431bf36bdb59c223777cbb267131b8f2"
    file_name = f"sentinel2_resnet50_{name.replace('-', '_')}-{sha256}.pth"
    return PublishedWeights(
        name=f"satlas-resnet50-{name}",
        family="satlas",
        architecture="resnet50",
        in_channels=in_channels,
        input_size=256,
        licence="ODC-BY",
        url=f"https://hf.co/torchgeo/satlas/resolve/{commit}/{file_name}",
        sha256=sha256,
    )


def _imagenet(name: str, sha256: str):
    return PublishedWeights(
        name=f"imagenet-resnet50-{name}",
        family="imagenet",
        architecture="resnet50",
        in_channels=3,
        input_size=224,
        licence="BSD-3-Clause",
        url=f"https://download.pytorch.org/models/resnet50-{sha256}.pth",
        sha256=sha256,
    )


CATALOGUE = {
    entry.name: entry
    for entry in (
        _ssl4eo(
            "moco",
            13,
            "resnet50_sentinel2_all_moco/resolve/da4f3c9dbe09272eb902f3b37f46635fa4726879/"
            "resnet50_sentinel2_all_moco-df8b932e",
        ),
        _ssl4eo(
            "dino",
            13,
            "resnet50_sentinel2_all_dino/resolve/d7f14bf5530d70ac69d763e58e77e44dbecfec7c/"
            "resnet50_sentinel2_all_dino-d6c330e9",
        ),
        _ssl4eo(
            "decur",
            13,
            "decur/resolve/eba7ae5945d482a4319be046d34b552db5dd9950/"
            "rn50_ssl4eo-s12_ms_decur_ep100-fc6b09ff",
            licence="Apache-2.0",
        ),
        _ssl4eo(
            "moco-rgb",
            3,
            "resnet50_sentinel2_rgb_moco/resolve/efd9723b59a88e9dc1420dc1e96afb25b0630a3c/"
            "resnet50_sentinel2_rgb_moco-2b57ba8b",
        ),
        _satlas("si-ms", 9, "1f454cc6"),
        _satlas("mi-ms", 9, "da5413d2"),
        _satlas("si-rgb", 3, "45fc6972"),
        _satlas("mi-rgb", 3, "e79bb7fe"),
        _imagenet("v1", "0676ba61"),
        _imagenet("v2", "11ad3fa6"),
    )
}
"""Every published set by name."""

DEFAULT = {
    "ssl4eo": "ssl4eo-resnet50-moco",
    "satlas": "satlas-resnet50-si-ms",
    "imagenet": "imagenet-resnet50-v1",
}
"""Name of the set that each family stands for: the one the paper uses, or its re-host."""


def published(name: str) -> PublishedWeights:
    """The entry called `name`; raises InputError listing the names there are."""
    if name not in CATALOGUE:
        raise InputError(f"no published weights are called {name}: choose {', '.join(CATALOGUE)}")
    return CATALOGUE[name]
