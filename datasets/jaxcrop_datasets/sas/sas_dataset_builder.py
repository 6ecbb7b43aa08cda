"""TFDS builder `sas`: South America Soybean, 2021 (datasets_spec section 4.4)."""

from typing import ClassVar

import tensorflow_datasets as tfds

from jaxcrop_datasets.crop_chips import CropChips


class Builder(CropChips):
    """South America Soybean (SAS) map over Sentinel-2 chips."""

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar = {"2.0.0": "First release, with the records of sact 2.0.0."}
    HOMEPAGE = "https://glad.umd.edu/projects/commodity-crop-mapping-and-monitoring-south-america"
    LICENSE = "Not stated"
    YEAR, DAY = 2021, "07-01"
    SEASON = ("10-15", "03-31")
    PUBLISHED_CHIPS = "sentinel2_sas_2021_subsampled"
    PUBLISHED_LABELS = "sas_harmonized"
