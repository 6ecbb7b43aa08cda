"""TFDS builder `sact`: South African Crop Type, Western Cape, 2017 (datasets_spec section 4.3)."""

from typing import ClassVar

import tensorflow_datasets as tfds

from jaxcrop_datasets.crop_chips import CropChips


class Builder(CropChips):
    """South African Crop Type (SACT) labels over Sentinel-2 chips."""

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar = {
        "2.0.0": "Raw codes, radiometric offset and cloudiness of each chip; variants."
    }
    HOMEPAGE = "https://doi.org/10.34911/rdnt.j0co8q"
    LICENSE = "CC-BY-4.0"
    YEAR, DAY = 2017, "03-01"
    SEASON = ("05-15", "11-15")
    PUBLISHED_CHIPS = "sentinel2_sact_2017_subsampled"
    PUBLISHED_LABELS = "sact_harmonized/train/labels"
