import csv

import tensorflow_datasets as tfds
from jaxcrop_datasets.sact.sact_dataset_builder import Builder

from jaxcrop.crops import IGNORE, OTHER, WHEAT
from jaxcrop.data.bands import SENTINEL2_BANDS
from jaxcrop.regions import REGIONS


def test_codes_are_the_published_legend(shared_data):
    with open(shared_data / "legends" / "south_africa_crop_type.csv") as file:
        legend = {int(row["code"]): row["name"] for row in csv.DictReader(file)}
    assert {code: name for code, (name, _) in Builder.CODES.items()} == legend


def test_only_wheat_is_told_from_other():
    assert {code: crop for code, (_, crop) in Builder.CODES.items()} == {
        0: IGNORE, 1: OTHER, 2: OTHER, 3: OTHER, 4: OTHER, 5: OTHER, 6: OTHER, 7: WHEAT, 8: OTHER,
        9: OTHER,
    }  # fmt: skip
    assert REGIONS["africa"].dataset == Builder.name == "sact"


def test_published_files_have_b8a_last():
    # datasets_spec 5: indices into the file that put it in the order of the records
    order = [Builder.FILE_BANDS.index(band) for band in SENTINEL2_BANDS]
    assert Builder.BANDS == SENTINEL2_BANDS
    assert order == [0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 9, 10, 11]


def test_description_citation_and_licence_are_found(tmp_path):
    info = Builder(data_dir=tmp_path).info
    assert "Western Cape" in info.description
    assert "10.34911/rdnt.j0co8q" in info.citation
    assert info.features["image"].shape == (None, 256, 256, 13)
    assert info.features["image"]._encoding is tfds.features.Encoding.BYTES
