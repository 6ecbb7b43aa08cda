"""TFDS builder `nccm`: Northeast China Crop Map, 2019 (datasets_spec section 4.2)."""

from typing import ClassVar

import tensorflow_datasets as tfds

from jaxcrop_datasets.crop_chips import CropChips


class Builder(CropChips):
    """Northeast China Crop Map (NCCM) over Sentinel-2 chips."""

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar = {"2.0.0": "First release, with the records of sact 2.0.0."}
    HOMEPAGE = "https://doi.org/10.1038/s41597-021-00827-9"
    LICENSE = "CC-BY-4.0"
    YEAR, DAY = 2019, "07-01"
    SEASON = ("05-01", "09-30")
    PUBLISHED_CHIPS = "sentinel2_nccm_2019_subsampled"
    PUBLISHED_LABELS = "nccm_harmonized_block"
