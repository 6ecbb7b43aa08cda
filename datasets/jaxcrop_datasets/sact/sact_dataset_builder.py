"""TFDS builder `sact`: South African Crop Type, Western Cape, 2017 (datasets_spec section 4.3)."""

from typing import ClassVar

import tensorflow_datasets as tfds

from jaxcrop.crops import IGNORE, OTHER, WHEAT
from jaxcrop.data.bands import PUBLISHED_BANDS, SENTINEL2_BANDS
from jaxcrop_datasets.crop_chips import CropChips


class Builder(CropChips):
    """South African Crop Type (SACT) labels over Sentinel-2 L1C chips."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}
    HOMEPAGE = "https://doi.org/10.34911/rdnt.j0co8q"
    LICENSE = "CC-BY-4.0"
    BANDS = SENTINEL2_BANDS
    FILE_BANDS = PUBLISHED_BANDS
    CODES: ClassVar = {
        0: ("No Data", IGNORE),
        1: ("Lucerne/Medics", OTHER),
        2: ("Planted pastures (perennial)", OTHER),
        3: ("Fallow", OTHER),
        4: ("Wine grapes", OTHER),
        5: ("Weeds", OTHER),
        6: ("Small grain grazing", OTHER),
        7: ("Wheat", WHEAT),
        8: ("Canola", OTHER),
        9: ("Rooibos", OTHER),
    }
    DATE = "2017-03-01"
    """The published chips were chosen among February to April 2017 and do not say which day."""
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Put the Sentinel-2 chips (13 bands, 256 x 256 pixels, uint16) in chips/*.tif and the label maps
    in labels/*.tif; the README of this builder says where they come from.
    """
