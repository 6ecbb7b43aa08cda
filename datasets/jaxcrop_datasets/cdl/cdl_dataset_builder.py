"""TFDS builder `cdl`: Cropland Data Layer, United States, 2023 (datasets_spec section 4.1)."""

from typing import ClassVar

import tensorflow_datasets as tfds

from jaxcrop_datasets.crop_chips import CropChips


class Builder(CropChips):
    """Cropland Data Layer (CDL) of the United States over Sentinel-2 chips."""

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar = {"2.0.0": "First release, with the records of sact 2.0.0."}
    HOMEPAGE = "https://www.nass.usda.gov/Research_and_Science/Cropland/SARS1a.php"
    LICENSE = "Public domain (USDA NASS)"
    YEAR, DAY = 2023, "07-01"
    SEASON = ("05-01", "09-30")
    PUBLISHED_CHIPS = "sentinel2_cdl_2023_subsampled"
    PUBLISHED_LABELS = "cdl_harmonized_block"
