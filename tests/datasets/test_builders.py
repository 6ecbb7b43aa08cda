"""What each of the six builders says of itself, against datasets_spec sections 3, 4 and 6."""

import datetime
import re

import pytest
from jaxcrop_datasets.crop_chips import CropChips

from jaxcrop.crops import IGNORE, MAIZE, OTHER, RICE
from jaxcrop.data.bands import SENTINEL2_BANDS
from jaxcrop.data.build import builder_class, dataset_names
from jaxcrop.regions import REGIONS

# year, licence, DOI or publisher of the citation, first author
FACTS = {
    "cdl": (2023, "Public domain", "nass.usda.gov", "USDA National Agricultural Statistics"),
    "eurocrops": (2021, "CC-BY-SA-4.0", "10.1038/s41597-023-02517-0", "Schneider, Maja"),
    "nccm": (2019, "CC-BY-4.0", "10.1038/s41597-021-00827-9", "You, Nanshan"),
    "sact": (2017, "CC-BY-4.0", "10.34911/rdnt.j0co8q", "Western Cape Department of Agriculture"),
    "sas": (2021, "Not stated", "10.1038/s41893-021-00729-z", "Song, Xiao-Peng"),
    "agrifieldnet": (2021, "CC-BY-4.0", "10.34911/rdnt.wu92p1", "Radiant Earth"),
}

# Section 6: folders of chips (below sentinel2_subsample_1000) and of label maps.
PUBLISHED = {
    "cdl": ("sentinel2_cdl_2023_subsampled", "cdl_harmonized_block"),
    "eurocrops": ("sentinel2_eurocrops_subsampled", "eurocrops_cropped_subsampled"),
    "nccm": ("sentinel2_nccm_2019_subsampled", "nccm_harmonized_block"),
    "sact": ("sentinel2_sact_2017_subsampled", "sact_harmonized/train/labels"),
    "sas": ("sentinel2_sas_2021_subsampled", "sas_harmonized"),
    "agrifieldnet": (
        "sentinel2_agrifieldnet_2021_subsampled", "agrifieldnet_harmonized/train_labels"
    ),
}  # fmt: skip


def test_the_facts_are_of_all_datasets():
    assert sorted(FACTS) == sorted(PUBLISHED) == dataset_names()


@pytest.fixture(scope="module", params=FACTS)
def dataset(request):
    return request.param


@pytest.fixture(scope="module")
def builder(dataset):
    return builder_class(dataset)


@pytest.fixture(scope="module")
def info(builder, tmp_path_factory):
    return builder(data_dir=tmp_path_factory.mktemp("records")).info


def test_name_year_and_licence(dataset, builder, info):
    year, licence, _, _ = FACTS[dataset]
    assert issubclass(builder, CropChips)
    assert info.name == builder.name == dataset
    assert year == builder.YEAR
    assert info.metadata["year"] == year
    assert licence in info.redistribution_info.license
    assert licence in re.search(r"\*\*Licence\.\*\* (.*)", info.description)[1]
    assert str(info.version) in builder.RELEASE_NOTES


def test_the_citation_is_bibtex_of_the_source(dataset, info):
    _, _, source, author = FACTS[dataset]
    assert re.fullmatch(r"@(article|misc)\{\w+,\n(  \w+ = \{.*\},?\n)+\}\n?", info.citation)
    assert source in info.citation
    assert author in info.citation.replace("{", "").replace("}", "")
    assert info.citation.count("{") == info.citation.count("}")


def test_the_description_is_that_of_this_dataset(dataset, builder, info):
    """Commands in it name this dataset, and its paragraphs are those of all."""
    text = info.description
    assert set(re.findall(r"jaxcrop\.data \w+ (\w+)", text)) == {dataset}
    assert f"jaxcrop_datasets.{dataset}.{dataset}_dataset_builder" in text
    assert re.findall(r"\*\*([A-Z]\w+)\.\*\*", text) == [
        "Source", "Classes", "Season", "Dates", "Variants", "Splits", "Licence"
    ]  # fmt: skip
    for name in {variant.harmonisation for variant in builder.BUILDER_CONFIGS}:
        assert f"`{name}`" in text
    assert len(builder.get_metadata().tags) > 1


def test_variants_are_every_harmonisation_radiometry_and_product(dataset, builder):
    harmonisations = ["standard", "paper"] + ["silage"] * (dataset == "eurocrops")
    expected = {
        harmonisation + radiometry + product
        for harmonisation in harmonisations
        for radiometry in ("", "-raw")
        for product in ("", "-l2a")
    }
    assert {variant.name for variant in builder.BUILDER_CONFIGS} == expected
    assert len(builder.BUILDER_CONFIGS) == len(expected)
    assert builder.BUILDER_CONFIGS[0].name == "standard"  # what TFDS takes unless told
    for variant in builder.BUILDER_CONFIGS:
        harmonisation, *rest = variant.name.split("-")
        assert variant.harmonisation == harmonisation
        assert (variant.radiometry == "raw") == ("raw" in rest)
        assert (variant.product == "L2A") == ("l2a" in rest)


# Section 4: what the released rules get wrong, by code → (paper, standard).
CORRECTED = {
    "cdl": {3: (OTHER, RICE)}
    | dict.fromkeys((26, 81, 231, 232, 233, 234, 235, 254), (OTHER, IGNORE)),
    "eurocrops": dict.fromkeys(
        # unspecified cereals; and the nodes above them, which may hide a crop as well
        (
            *(3301011500, 3301011501, 3301011502, 3301011503, 3301011599),
            *(3000000000, 3300000000, 3301000000, 3301010000),
        ),
        (OTHER, IGNORE),
    ),
}


def test_paper_and_standard_differ_where_the_paper_errs(dataset, builder):
    paper, standard = builder.code_table("paper"), builder.code_table("standard")
    pairs = zip(paper.codes.tolist(), paper.classes, standard.classes, strict=True)
    differ = {code: (old, new) for code, old, new in pairs if old != new}
    assert differ == CORRECTED.get(dataset, {})


def test_silage_differs_from_standard_in_silage_maize_alone():
    builder = builder_class("eurocrops")
    silage, standard = builder.code_table("silage"), builder.code_table("standard")
    (changed,) = (silage.classes != standard.classes).nonzero()
    assert silage.codes[changed].tolist() == [3301090400]
    assert silage.classes[changed].tolist() == [MAIZE]


def test_records_hold_thirteen_bands_or_without_cirrus_twelve(builder, tmp_path):
    for name in ("standard", "paper-raw-l2a"):
        made = builder(data_dir=tmp_path, config=name).info
        bands = [band for band in SENTINEL2_BANDS if band != "B10" or "l2a" not in name]
        assert made.metadata["bands"] == bands
        assert made.features["image"].shape == (None, 256, 256, len(bands))
        assert made.metadata["radiometry"] == ("raw" if "raw" in name else "harmonised")


def test_the_published_folders_are_those_of_the_repository(dataset, builder):
    assert PUBLISHED[dataset] == (builder.PUBLISHED_CHIPS, builder.PUBLISHED_LABELS)


def test_only_polygons_have_a_code_field(dataset, builder):
    fields = {"eurocrops": "EC_hcat_c", "agrifieldnet": "crop_type"}
    assert fields.get(dataset) == builder.CODE_FIELD


def test_days_and_seasons_are_days_of_the_year(builder, info):
    for day in (builder.DAY, *builder.SEASON):
        datetime.date.fromisoformat(f"2021-{day}")
    assert info.metadata["season"] == list(builder.SEASON)


def test_published_chips_were_taken_where_the_dates_are_known_to_lie(dataset, builder):
    """Section 5: July, save in South Africa (February to April) and India (June to August)."""
    months = {"sact": (2, 3, 4), "agrifieldnet": (6, 7, 8)}.get(dataset, (7,))
    assert int(builder.DAY[:2]) in months


@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS)
def test_regions_name_builders_of_their_year_and_classes(region):
    builder = builder_class(region.dataset)
    assert region.year == builder.YEAR
    classes = set(builder.code_table("standard").classes.tolist()) - {IGNORE}
    assert classes == set(region.classes)


def test_every_dataset_is_a_region():
    """AgriFieldNet was dropped after the paper's first version."""
    assert sorted(region.dataset for region in REGIONS.values()) == dataset_names()
    left_out = [region.dataset for region in REGIONS.values() if not region.in_paper]
    assert left_out == ["agrifieldnet"]
