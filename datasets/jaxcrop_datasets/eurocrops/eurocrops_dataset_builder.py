"""TFDS builder `eurocrops`: fields declared in the EU, 2018-2021 (datasets_spec section 4.5)."""

from typing import ClassVar

import tensorflow_datasets as tfds

from jaxcrop_datasets.crop_chips import CropChips, variants


class Builder(CropChips):
    """EuroCrops: fields as farmers declared them, over Sentinel-2 chips."""

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar = {"2.0.0": "First release, with the records of sact 2.0.0."}
    HOMEPAGE = "https://www.eurocrops.tum.de"
    LICENSE = "CC-BY-SA-4.0"
    YEAR, DAY = 2021, "07-01"
    SEASON = ("04-01", "09-30")
    PUBLISHED_CHIPS = "sentinel2_eurocrops_subsampled"
    PUBLISHED_LABELS = "eurocrops_cropped_subsampled"
    CODE_FIELD = "EC_hcat_c"
    BUILDER_CONFIGS: ClassVar = variants("standard", "paper", "silage")
