"""TFDS builder `agrifieldnet`: AgriFieldNet, northern India, 2021 (datasets_spec section 4.6)."""

from typing import ClassVar

import tensorflow_datasets as tfds

from jaxcrop_datasets.crop_chips import CropChips


class Builder(CropChips):
    """AgriFieldNet labels over Sentinel-2 chips."""

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar = {"2.0.0": "First release, with the records of sact 2.0.0."}
    HOMEPAGE = "https://doi.org/10.34911/rdnt.wu92p1"
    LICENSE = "CC-BY-4.0"
    YEAR, DAY = 2021, "07-01"
    SEASON = ("11-01", "04-15")
    PUBLISHED_CHIPS = "sentinel2_agrifieldnet_2021_subsampled"
    PUBLISHED_LABELS = "agrifieldnet_harmonized/train_labels"
    CODE_FIELD = "crop_type"
