"""`CropChips` on small hand-made GeoTIFFs, and on real Sentinel-2 tiles."""

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import rasterio
import rasterio.warp
import tensorflow_datasets as tfds
from affine import Affine
from jaxcrop_datasets.chips import split_chips
from jaxcrop_datasets.crop_chips import PUBLISHED, REPORT, CropChips, build_records, variants
from rasterio.transform import from_origin

from jaxcrop.crops import IGNORE, OTHER, RICE, WHEAT
from jaxcrop.data.bands import SENTINEL2_BANDS
from jaxcrop.data.build import builder_class
from jaxcrop.errors import InputError

CRS = "EPSG:32734"
EAST, NORTH = 300_000, 6_300_000


class Tiny(CropChips, skip_registration=True):
    """Three bands of 16 x 16 pixels; raw 0 is a crop, as in NCCM."""

    VERSION = tfds.core.Version("1.0.0")
    BANDS = ("B02", "B03", "B04")
    FILE_BANDS = ("B04", "B02", "B03")
    CODES: ClassVar = {0: ("rice", RICE), 7: ("wheat", WHEAT), 8: ("x", OTHER), 15: ("-", IGNORE)}
    SIZE = 16
    YEAR, DAY = 2017, "03-01"
    BUILDER_CONFIGS: ClassVar = variants("standard")
    HOMEPAGE = "https://example.org"
    LICENSE = "CC-BY-4.0"


def write(path: Path, pixels, *, crs=CRS, at=(EAST, NORTH), metres=10.0, tags=None, **options):
    """Write pixels (band, height, width) as a GeoTIFF whose north-west corner lies at `at`."""
    names = options.pop("descriptions", None)
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype,
        crs=crs, transform=from_origin(*at, metres, metres), **options,
    ) as file:  # fmt: skip
        file.write(pixels)
        file.update_tags(**(tags or {}))
        if names:
            file.descriptions = names


def chip_pixels(seed: int, bands: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 9000, (bands, 16, 16), np.uint16)


def at(chip: int) -> tuple[float, float]:
    return EAST + 200 * chip, NORTH


@pytest.fixture
def source(tmp_path) -> Path:
    """Three good chips with one label map each on the same grid."""
    folder = tmp_path / "source"
    for chip in range(3):
        write(folder / "chips" / f"c{chip}.tif", chip_pixels(chip), at=at(chip))
        codes = np.random.default_rng(chip).choice([0, 7, 8], (1, 16, 16)).astype(np.uint8)
        write(folder / "labels" / f"l{chip}.tif", codes, at=at(chip))
    return folder


def records(folder: Path) -> dict[str, dict]:
    """All records below a data folder by chip id, read as anyone would: without our classes."""
    (info,) = folder.rglob("dataset_info.json")
    builder = tfds.builder_from_directory(info.parent)
    return {
        record["chip_id"].decode(): record
        for split in ("train", "validation", "test")
        for record in builder.as_data_source(split=split)
    }


def test_record_holds_what_the_files_hold(source, tmp_path):
    build_records(Tiny, source, tmp_path / "out")
    found = records(tmp_path / "out")
    assert set(found) == {"c0", "c1", "c2"}
    record = found["c1"]
    by_name = dict(zip(Tiny.FILE_BANDS, chip_pixels(1), strict=True))
    expected = np.stack([by_name[band] for band in Tiny.BANDS], axis=-1)
    np.testing.assert_array_equal(record["image"], expected[None])
    assert record["image"].dtype == np.uint16
    with rasterio.open(source / "labels" / "l1.tif") as file:
        raw = file.read(1)
    expected_label = np.select([raw == 0, raw == 7, raw == 8], [RICE, WHEAT, OTHER])
    np.testing.assert_array_equal(record["label"], expected_label)
    assert record["label"].dtype == np.uint8
    assert record["crs"] == b"EPSG:32734"
    assert list(record["dates"]) == [b"2017-03-01"]
    np.testing.assert_array_equal(record["transform"], [10, 0, EAST + 200, 0, -10, NORTH])
    np.testing.assert_array_equal(record["code"], raw)
    assert (record["offset"], list(record["offset_source"])) == ([0], [b"year"])
    blue, green = (by_name[band].astype(int) for band in ("B02", "B03"))
    np.testing.assert_allclose(record["cloudy"], (np.minimum(blue, green) > 1400).mean())
    assert record["nodata"] == [0]


def test_described_bands_are_ordered_by_name_not_by_file_order(source, tmp_path):
    names = ("B03", "B04", "B02")
    path = source / "chips" / "c0.tif"
    write(
        path, chip_pixels(0), at=at(0), descriptions=names, tags={"ACQUISITION_DATE": "2017-08-20"}
    )
    build_records(Tiny, source, tmp_path / "out")
    record = records(tmp_path / "out")["c0"]
    by_name = dict(zip(names, chip_pixels(0), strict=True))
    np.testing.assert_array_equal(record["image"][0, ..., 0], by_name["B02"])
    np.testing.assert_array_equal(record["image"][0, ..., 2], by_name["B04"])
    assert list(record["dates"]) == [b"2017-08-20"]


def test_metadata_names_bands_codes_and_synthetic_chips(source, tmp_path):
    build_records(Tiny, source, tmp_path / "real")
    write(source / "chips" / "c2.tif", chip_pixels(2), at=at(2), tags={"SYNTHETIC": "YES"})
    build_records(Tiny, source, tmp_path / "drawn")
    for name, synthetic in (("real", False), ("drawn", True)):
        metadata = tfds.builder_from_directory(
            tmp_path / name / "tiny" / "standard" / "1.0.0"
        ).info.metadata
        assert metadata["bands"] == ["B02", "B03", "B04"]
        assert metadata["codes"]["7"] == {"name": "wheat", "class": WHEAT}
        assert metadata["synthetic"] is synthetic


def test_series_is_stored_by_date(source, tmp_path):
    (source / "chips" / "c0.tif").unlink()
    days = ("2017-09-01", "2017-05-01", "2017-07-01")
    for seed, day in enumerate(days):
        write(source / "chips" / "c0" / f"{day}.tif", chip_pixels(seed), at=at(0))
    build_records(Tiny, source, tmp_path / "out")
    record = records(tmp_path / "out")["c0"]
    assert record["image"].shape == (3, 16, 16, 3)
    assert [d.decode() for d in record["dates"]] == sorted(days)
    np.testing.assert_array_equal(record["image"][0, ..., 2], chip_pixels(1)[0])


@pytest.mark.parametrize(("crs", "metres"), [("EPSG:3857", 8.0), ("EPSG:4326", 0.0003)])
def test_labels_are_warped_from_another_projection(source, tmp_path, crs, metres):
    """Oracle: the codes under the chip's pixel centres, by arithmetic on their coordinates."""
    for path in (source / "labels").iterdir():
        path.unlink()
    west, south, east, north = rasterio.warp.transform_bounds(
        CRS, crs, EAST - 100, NORTH - 400, EAST + 800, NORTH + 200
    )
    shape = (1, int((north - south) / metres), int((east - west) / metres))
    raw = np.random.default_rng(0).choice([0, 7, 8], shape).astype(np.uint8)
    write(source / "labels" / "map.tif", raw, crs=crs, at=(west, north), metres=metres, nodata=0)
    build_records(Tiny, source, tmp_path / "out")
    x, y = np.meshgrid(EAST + 200 + 10 * (np.arange(16) + 0.5), NORTH - 10 * (np.arange(16) + 0.5))
    xs, ys = rasterio.warp.transform(CRS, crs, x.ravel(), y.ravel())
    column, row = (np.array(xs) - west) / metres, (north - np.array(ys)) / metres
    under = raw[0, row.astype(int), column.astype(int)]
    expected = np.select([under == 0, under == 7, under == 8], [RICE, WHEAT, OTHER])
    # GDAL interpolates the projection to an eighth of a pixel: pixels nearer to an edge may differ.
    clear = np.all([np.abs(v % 1 - 0.5) < 0.37 for v in (column, row)], axis=0)
    assert clear.sum() > 100
    label = records(tmp_path / "out")["c1"]["label"].ravel()
    np.testing.assert_array_equal(label[clear], expected[clear])


def test_a_map_of_the_whole_world_is_read_only_where_the_chips_lie(source, tmp_path):
    for path in (source / "labels").iterdir():
        path.unlink()
    world = np.full((1, 1800, 3600), 8, np.uint8)
    write(source / "labels" / "world.tif", world, crs="EPSG:4326", at=(-180, 90), metres=0.1)
    build_records(Tiny, source, tmp_path / "out")
    assert (records(tmp_path / "out")["c0"]["label"] == OTHER).all()


def test_label_maps_are_merged_and_the_rest_ignored(source, tmp_path):
    (source / "labels" / "l0.tif").unlink()
    west = np.full((1, 16, 4), 7, np.uint8)
    west[0, :, 3] = 15
    write(source / "labels" / "a.tif", west, at=at(0))
    write(source / "labels" / "b.tif", np.full((1, 16, 5), 8, np.uint8), at=(EAST + 20, NORTH))
    build_records(Tiny, source, tmp_path / "out")
    label = records(tmp_path / "out")["c0"]["label"]
    expected = [WHEAT] * 3 + [OTHER] * 4 + [IGNORE] * 9
    np.testing.assert_array_equal(label, [expected] * 16)


def test_two_builds_write_the_same_bytes(source, tmp_path):
    contents = []
    for out in (tmp_path / "a", tmp_path / "b"):
        build_records(Tiny, source, out)
        contents.append({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert contents[0] == contents[1]
    assert sum(path.name.count("array_record") for path in contents[0]) == 3


@pytest.mark.parametrize(
    ("chips", "sizes"), [(1000, (810, 90, 100)), (3, (1, 1, 1)), (20, (16, 2, 2))]
)
def test_splits_share_no_chip_and_ignore_the_order(chips, sizes):
    ids = [f"2017_{i:05d}" for i in range(chips)]
    splits = split_chips(ids)
    assert tuple(len(splits[name]) for name in ("train", "validation", "test")) == sizes
    assert sorted(itertools.chain(*splits.values())) == ids
    assert split_chips(ids[::-1]) == splits


DAMAGES = {}
"""Each spoils a source folder in one way, and returns what the message has to name."""


def damage(spoil):
    DAMAGES[spoil.__name__] = spoil
    return spoil


@damage
def truncated(source):
    path = source / "chips" / "c1.tif"
    os.truncate(path, 700)
    return "c1.tif"


@damage
def not_a_tiff(source):
    (source / "chips" / "c1.tif").write_bytes(b"GIF89a, they said")
    return "c1.tif"


@damage
def another_format(source):
    vrt = "<VRTDataset rasterXSize='16' rasterYSize='16'></VRTDataset>"
    (source / "chips" / "c1.tif").write_text(vrt)
    return "c1.tif"


@damage
def two_bands(source):
    write(source / "chips" / "c1.tif", chip_pixels(1, bands=2), at=at(1))
    return "2 bands, not 3"


@damage
def floats(source):
    write(source / "chips" / "c1.tif", chip_pixels(1).astype(np.float32), at=at(1))
    return "float32, not uint16"


@damage
def small(source):
    write(source / "chips" / "c1.tif", chip_pixels(1)[:, :, :15], at=at(1))
    return "16 x 15 pixels, not 16 x 16"


@damage
def no_projection(source):
    write(source / "chips" / "c1.tif", chip_pixels(1), at=at(1), crs=None)
    return "no projection"


@damage
def south_up(source):
    with rasterio.open(source / "labels" / "l1.tif", "r+") as file:
        file.transform = Affine(10, 0, EAST, 0, 10, NORTH)
    return "l1.tif is not north-up"


@damage
def strange_bands(source):
    write(source / "chips" / "c1.tif", chip_pixels(1), at=at(1), descriptions=("R", "G", "B"))
    return "R, G, B"


@damage
def strange_date(source):
    tags = {"ACQUISITION_DATE": "last Tuesday"}
    write(source / "chips" / "c1.tif", chip_pixels(1), at=at(1), tags=tags)
    return "last Tuesday"


@damage
def far_away(source):
    write(source / "chips" / "c1.tif", chip_pixels(1), at=(EAST + 50_000, NORTH))
    return "under no label map"


@damage
def unknown_code(source):
    write(source / "labels" / "l1.tif", np.full((1, 16, 16), 42, np.uint8), at=at(1))
    return "l1.tif holds the unknown code 42"


@damage
def negative_code(source):
    write(source / "labels" / "l1.tif", np.full((1, 16, 16), -7, np.int16), at=at(1))
    return "l1.tif holds the unknown code -7"


@damage
def fractional_codes(source):
    write(source / "labels" / "l1.tif", np.full((1, 16, 16), 0.5, np.float32), at=at(1))
    return "l1.tif"


@damage
def all_ignored(source):
    write(source / "labels" / "l1.tif", np.full((1, 16, 16), 15, np.uint8), at=at(1))
    return "c1.tif has no labelled pixel"


@damage
def label_damaged(source):
    (source / "labels" / "l1.tif").write_bytes(b"")
    return "l1.tif"


@damage
def all_zero(source):
    write(source / "chips" / "c1.tif", 0 * chip_pixels(1), at=at(1))
    return "c1.tif is empty"


@damage
def strange_offset(source):
    tags = {"RADIO_ADD_OFFSET": "a thousand"}
    write(source / "chips" / "c1.tif", chip_pixels(1), at=at(1), tags=tags)
    return "a thousand"


@damage
def twice(source):
    write(source / "chips" / "c1.tiff", chip_pixels(1), at=at(1))
    return "chip c1 occurs twice"


@damage
def two_chips(source):
    (source / "chips" / "c1.tif").unlink()
    return "2 chips are too few"


@damage
def no_chips(source):
    for path in (source / "chips").iterdir():
        path.unlink()
    return "holds no GeoTIFF"


@damage
def no_labels_folder(source):
    (source / "labels").rename(source / "labels-lost")
    return "labels is missing"


@damage
def series_of_two_grids(source):
    for day, east in (("2017-01-01", EAST), ("2017-02-01", EAST + 10)):
        write(source / "chips" / "c9" / f"{day}.tif", chip_pixels(1), at=(east, NORTH))
    return "another grid"


@damage
def series_of_one_date(source):
    for name in ("a", "b"):
        write(source / "chips" / "c9" / f"{name}.tif", chip_pixels(1), at=at(0))
    return "same date"


@pytest.mark.parametrize("name", DAMAGES)
def test_bad_input_is_told_in_a_sentence_and_leaves_nothing(source, tmp_path, name):
    named = DAMAGES[name](source)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError) as caught:
        build_records(Tiny, source, tmp_path / "out")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_files_are_all_named_or_left_out_and_reported(source, tmp_path):
    for chip in range(3, 9):
        write(source / "chips" / f"c{chip}.tif", chip_pixels(chip), at=at(chip % 3))
    for spoil in (truncated, strange_date):
        spoil(source)
        (source / "chips" / "c1.tif").rename(source / "chips" / f"c1_{spoil.__name__}.tif")
    write(source / "chips" / "c1.tif", chip_pixels(1), at=at(1))
    twice(source)
    with pytest.raises(InputError) as caught:
        build_records(Tiny, source, tmp_path / "out")
    for named in ("3 chips cannot be built", "c1_truncated.tif", "last Tuesday", "c1.tiff"):
        assert named in str(caught.value)
    assert not (tmp_path / "out").exists()
    builder = build_records(Tiny, source, tmp_path / "out", on_error="skip")
    assert records(tmp_path / "out").keys() == {f"c{chip}" for chip in range(9)}
    assert builder.info.metadata["left_out"] == 3
    with open(Path(builder.data_dir) / REPORT) as file:
        reported = {Path(row["file"]).name: row["reason"] for row in csv.DictReader(file)}
    assert reported.keys() == {"c1_truncated.tif", "c1_strange_date.tif", "c1.tiff"}
    assert "last Tuesday" in reported["c1_strange_date.tif"]


def test_one_in_a_hundred_of_a_thousand_chips(source, tmp_path):
    """Ten bad files of as many kinds: the other 990 chips are built, and each of the ten named."""
    for path in (source / "labels").iterdir():
        path.unlink()
    codes = np.random.default_rng(0).choice([0, 7, 8], (1, 800, 400)).astype(np.uint8)
    codes[0, :16, :16] = 99  # mislabelled: the first chip of the grid
    write(source / "labels" / "region.tif", codes, at=at(0))
    for path in (source / "chips").iterdir():
        path.unlink()
    for number in range(1000):
        place = (EAST + 160 * (number % 25), NORTH - 160 * (number // 25))
        write(source / "chips" / f"c{number:03d}.tif", chip_pixels(number), at=place)

    def spoil(number: int, pixels=None, **options) -> str:
        path = source / "chips" / f"c{number:03d}.tif"
        options = {"at": (EAST + 160 * (number % 25), NORTH - 160 * (number // 25)), **options}
        write(path, chip_pixels(number) if pixels is None else pixels, **options)
        return path.name

    truncated, nothing = source / "chips" / "c101.tif", source / "chips" / "c202.tif"
    os.truncate(truncated, truncated.stat().st_size // 2)
    nothing.write_bytes(b"")
    bad = {
        "c000.tif": "unknown code 99",
        truncated.name: "cannot be read",
        nothing.name: "cannot be read",
        spoil(303, chip_pixels(1, bands=2)): "2 bands",
        spoil(404, crs="EPSG:32654"): "under no label map",
        spoil(505, crs=None): "no projection",
        spoil(606, np.full((3, 16, 16), np.nan, np.float32)): "float32",
        spoil(707, 0 * chip_pixels(1)): "is empty",
        spoil(808, chip_pixels(1), descriptions=("B02", "B03", "B99")): "B99",
    }
    (source / "chips" / "c909.tiff").write_bytes((source / "chips" / "c909.tif").read_bytes())
    bad["c909.tiff"] = "occurs twice"
    builder = build_records(Tiny, source, tmp_path / "out", on_error="skip")
    assert sum(split.num_examples for split in builder.info.splits.values()) == 991
    with open(Path(builder.data_dir) / REPORT) as file:
        reported = {Path(row["file"]).name: row["reason"] for row in csv.DictReader(file)}
    assert reported.keys() == bad.keys()
    for name, reason in bad.items():
        assert reason in reported[name]
    with pytest.raises(InputError, match="10 chips cannot be built"):
        build_records(Tiny, source, tmp_path / "stopped")
    assert not (tmp_path / "stopped").exists()


@pytest.mark.parametrize("dataset", ["cdl", "sact"])
def test_the_published_layout_has_labels_of_the_papers_rules(tmp_path, dataset):
    """Built as `paper`, or as `standard` where the rules are the same; classes stay as they are."""
    builder = builder_class(dataset)
    dummy = builder.code_path.parent / "dummy_data"
    chips = tmp_path / "hub" / PUBLISHED / builder.PUBLISHED_CHIPS
    shutil.copytree(dummy / "chips", chips)
    labels = tmp_path / "hub" / builder.PUBLISHED_LABELS
    labels.mkdir(parents=True)
    for path in (dummy / "labels").iterdir():
        with rasterio.open(path) as file:
            profile, raw = file.profile, file.read(1)
        with rasterio.open(labels / path.name, "w", **profile) as file:
            file.write(builder.code_table("paper").harmonise(raw, path), 1)
    build_records(builder, tmp_path / "hub", tmp_path / "paper", variant="paper-raw")
    build_records(builder, dummy, tmp_path / "raw", variant="paper-raw")
    found, expected = records(tmp_path / "paper"), records(tmp_path / "raw")
    for chip, record in expected.items():
        np.testing.assert_array_equal(found[chip]["label"], record["label"])
        np.testing.assert_array_equal(found[chip]["code"], record["label"])
        np.testing.assert_array_equal(found[chip]["image"], record["image"])
    if dataset == "cdl":
        with pytest.raises(InputError, match="build the variant paper or paper-raw"):
            build_records(builder, tmp_path / "hub", tmp_path / "standard")
    else:
        build_records(builder, tmp_path / "hub", tmp_path / "standard")
        assert records(tmp_path / "standard").keys() == expected.keys()


def test_harmonised_labels_given_as_raw_codes_are_noticed(tmp_path):
    dummy = builder_class("sact").code_path.parent / "dummy_data"
    shutil.copytree(dummy, tmp_path / "source")
    for path in (tmp_path / "source" / "labels").iterdir():
        with rasterio.open(path, "r+") as file:
            file.write(np.where(file.read(1) == 7, 4, 5).astype(np.uint8), 1)
    with pytest.warns(UserWarning, match="hold no code above 5"):
        build_records(builder_class("sact"), tmp_path / "source", tmp_path / "out")


def test_surface_reflectance_has_no_cirrus_band(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(builder_class("nccm").code_path.parent / "dummy_data", source)
    bands = [band for band in SENTINEL2_BANDS if band != "B10"]
    for path in (source / "chips").iterdir():
        with rasterio.open(path) as file:
            profile = {**file.profile, "count": 12}
            planes = file.read()[:12]
        with rasterio.open(path, "w", **profile) as file:
            file.write(planes)
            file.descriptions = bands
    with pytest.raises(InputError, match="12 bands, not 13"):
        build_records(builder_class("nccm"), source, tmp_path / "out")
    build_records(builder_class("nccm"), source, tmp_path / "out", variant="standard-l2a")
    assert all(r["image"].shape == (1, 256, 256, 12) for r in records(tmp_path / "out").values())


def test_an_unknown_variant_is_refused(source, tmp_path):
    with pytest.raises(InputError, match="no variant is called papers: choose one of standard"):
        build_records(Tiny, source, tmp_path / "out", variant="papers")


def test_missing_source_and_unwritable_target(source, tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        build_records(Tiny, tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        build_records(Tiny, source, tmp_path / "file" / "out")


def test_existing_records_are_not_replaced(source, tmp_path):
    build_records(Tiny, source, tmp_path / "out")
    before = records(tmp_path / "out")
    with pytest.raises(InputError, match="built already"):
        build_records(Tiny, source, tmp_path / "out")
    assert records(tmp_path / "out").keys() == before.keys()


class UpIndia(Tiny, skip_registration=True):
    """Real pixels of four bands with masks of parcels; 0 is not labelled."""

    BANDS = FILE_BANDS = ("B02", "B03", "B04", "B08")
    CODES: ClassVar = {0: ("-", IGNORE), 1: ("wheat", WHEAT), 2: ("mustard", OTHER)}
    SIZE = 32
    YEAR, DAY = 2026, "02-01"


def test_real_tiles_with_masks(shared_data, tmp_path):
    """Cuts the tiles of Uttar Pradesh to chips under their uncut masks: pixels arrive in place.

    They are of 2026 and carry the offset of 1,000, which the records are without.
    """
    given = shared_data / "up_india"
    expected = {}
    (tmp_path / "source" / "labels").mkdir(parents=True)
    for mask in sorted((given / "masks").iterdir()):
        (tmp_path / "source" / "labels" / mask.name).symlink_to(mask)
        name = mask.name.removesuffix("_mask.tif")
        with rasterio.open(mask) as file, rasterio.open(given / "images" / f"{name}.tif") as tile:
            raw, image = file.read(1), tile.read()
            west, north = tile.bounds.left, tile.bounds.top
        for y, x in np.ndindex(8, 8):
            piece = np.s_[..., 32 * y : 32 * y + 32, 32 * x : 32 * x + 32]
            if raw[piece].any():
                chip = f"{name}_{y}{x}"
                corner = (west + 320 * x, north - 320 * y)
                path = tmp_path / "source" / "chips" / f"{chip}.tif"
                write(path, image[piece], crs="EPSG:32644", at=corner)
                expected[chip] = (image[piece], raw[piece])
    build_records(UpIndia, tmp_path / "source", tmp_path / "out")
    found = records(tmp_path / "out")
    assert found.keys() == expected.keys()
    for chip, (image, raw) in expected.items():
        reflectance = found[chip]["image"][0].astype(int) + 1000
        np.testing.assert_array_equal(reflectance, image.transpose(1, 2, 0))
        assert found[chip]["offset"] == [1000]
        label = np.select([raw == 1, raw == 2], [WHEAT, OTHER])
        np.testing.assert_array_equal(found[chip]["label"], label)


class Pastis(Tiny, skip_registration=True):
    """Real series of three dates and ten bands, 32 x 32 pixels of 40 m."""

    BANDS = FILE_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
    CODES: ClassVar = {
        code: (str(code), {0: IGNORE, 19: IGNORE, 2: WHEAT}.get(code, OTHER)) for code in range(20)
    }
    SIZE = 32


def test_real_series(shared_data, tmp_path):
    """PASTIS patches of three dates, written here as GeoTIFFs at their place."""
    expected = {}
    for path in sorted((shared_data / "pastis_32px_40m").glob("*.npz")):
        with np.load(path) as arrays:
            series = np.clip(arrays["s2"], 0, None).astype(np.uint16)
            codes = arrays["semantic"].astype(np.uint8)
            days = [datetime.strptime(str(day), "%Y%m%d").date() for day in arrays["dates"]]
            place = rasterio.warp.transform(
                "EPSG:4326", "EPSG:32631", [float(arrays["lon"])], [float(arrays["lat"])]
            )
        where = {"crs": "EPSG:32631", "at": (place[0][0], place[1][0]), "metres": 40}
        for day, image in zip(days, series, strict=True):
            write(tmp_path / "source" / "chips" / path.stem / f"{day}.tif", image, **where)
        write(tmp_path / "source" / "labels" / f"{path.stem}.tif", codes[None], **where)
        expected[path.stem] = (series, codes, [day.isoformat() for day in days])
    build_records(Pastis, tmp_path / "source", tmp_path / "out")
    found = records(tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, (series, codes, days) in expected.items():
        np.testing.assert_array_equal(found[name]["image"], series.transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(found[name]["label"] == WHEAT, codes == 2)
        np.testing.assert_array_equal(found[name]["label"] == IGNORE, (codes == 0) | (codes == 19))
        assert [day.decode() for day in found[name]["dates"]] == days


def test_building_and_reading_need_no_tensorflow(tmp_path):
    """A process that cannot import TensorFlow, Beam, dill or JAX draws, builds and reads."""
    program = """
import sys
from pathlib import Path
FORBIDDEN = {"tensorflow", "apache_beam", "dill", "jax"}
class Hiding:
    def __init__(self, finder):
        self._finder = finder
    def __getattr__(self, name):
        return getattr(self._finder, name)
    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in FORBIDDEN
        return None if hidden else self._finder.find_spec(name, path, target)
sys.meta_path[:] = map(Hiding, sys.meta_path)
import tensorflow_datasets as tfds
from jaxcrop.data.build import build
from jaxcrop.data.synthetic import write_region
write_region(Path("source"), "africa", 3, 0)
build("sact", Path("source"), Path("out"))
import jaxcrop_datasets.sact.sact_dataset_builder
print(tfds.data_source("sact", split="train", data_dir="out")[0]["image"].shape)
from jaxcrop.data.reading import find_records
print(find_records(Path("out"), "sact").raw("train")[0]["label"].shape)
assert not FORBIDDEN & sys.modules.keys(), FORBIDDEN & sys.modules.keys()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "(1, 256, 256, 13)" in done.stdout
    metadata = json.loads((tmp_path / "out/sact/standard/2.0.0/metadata.json").read_text())
    assert metadata["synthetic"] is True
