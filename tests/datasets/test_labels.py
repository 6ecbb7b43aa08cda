"""Label maps over chips. Oracles: geopandas with GDAL's rasteriser, and real parcels and masks."""

import shutil
from pathlib import Path
from zipfile import ZipFile

import geopandas
import numpy as np
import pytest
import rasterio
from jaxcrop_datasets.codes import Codes, from_mapping
from jaxcrop_datasets.labels import LabelFields, LabelMaps, open_labels
from jaxcrop_datasets.rasters import Grid
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import from_origin
from shapely.geometry import LineString, Point, box

from jaxcrop.crops import IGNORE, OTHER, WHEAT
from jaxcrop.errors import InputError

SOFT_WHEAT, BARLEY, UNSPECIFIED = 3301010100, 3301010400, 3301011500
CODES = from_mapping(
    {SOFT_WHEAT: ("wheat", WHEAT), BARLEY: ("barley", OTHER), UNSPECIFIED: ("cereals", IGNORE)}
)
WEST, NORTH = 500_000.0, 300_000.0


def grid(pixels: int = 20, crs: str = "EPSG:3059", at=(WEST, NORTH)) -> Grid:
    return Grid(CRS.from_user_input(crs), from_origin(*at, 10, 10), pixels, pixels)


def field(left: int, top: int, right: int, bottom: int):
    """A rectangle whose corners are given in pixels of `grid()`."""
    return box(WEST + 10 * left, NORTH - 10 * bottom, WEST + 10 * right, NORTH - 10 * top)


def write_fields(path: Path, shapes, values, crs="EPSG:3059") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = geopandas.GeoDataFrame({"code": values}, geometry=list(shapes), crs=crs)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".zip":  # as EuroCrops packs them
        write_fields(path.parent / "unpacked" / "LV" / "f.shp", shapes, values, crs)
        shutil.make_archive(str(path.with_suffix("")), "zip", path.parent / "unpacked")
        shutil.rmtree(path.parent / "unpacked")
    else:
        frame.to_file(path)


def test_rasters_of_field_numbers_are_passed_over(tmp_path):
    """The real field numbers of an AgriFieldNet chip would be unknown codes."""
    codes = from_mapping({1: ("wheat", WHEAT)})
    where = {"crs": "EPSG:3059", "transform": grid().transform, "height": 20, "width": 20}
    for name, value in (("004fa", 1), ("004fa_field_ids", 711)):
        profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", **where}
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as file:
            file.write(np.full((1, 20, 20), value, np.uint16))
    assert (LabelMaps(tmp_path, codes).over(grid(), Path("chip.tif")) == 1).all()


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "parquet", "zip"])
@pytest.mark.parametrize("target", ["EPSG:3059", "EPSG:3857"])
def test_fields_are_rasterised_as_geopandas_and_gdal_do(tmp_path, suffix, target):
    rng = np.random.default_rng(0)
    centres = np.column_stack(
        [rng.uniform(WEST - 300, WEST + 1500, 60), rng.uniform(NORTH - 1500, NORTH + 300, 60)]
    )
    shapes = [Point(c).buffer(rng.uniform(5, 120), quad_segs=3) for c in centres]
    values = rng.choice([SOFT_WHEAT, BARLEY, UNSPECIFIED], 60)
    write_fields(tmp_path / f"f.{suffix}", shapes, [str(v) for v in values])
    (corner,) = geopandas.GeoSeries([Point(WEST, NORTH)], crs="EPSG:3059").to_crs(target)
    chip = grid(200, target, (corner.x, corner.y))
    frame = geopandas.GeoDataFrame({"code": values}, geometry=shapes, crs="EPSG:3059")
    frame = frame.to_crs(target)
    expected = rasterize(
        zip(frame.geometry, frame.code, strict=True), (200, 200), fill=CODES.outside,
        transform=chip.transform, dtype="uint32",
    )  # fmt: skip
    code = LabelFields(tmp_path, CODES, "code").over(chip, Path("chip.tif"))
    assert code.dtype == np.uint32
    assert len(np.unique(expected)) == 4
    np.testing.assert_array_equal(code, expected)


@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        (["3301010100", None, ""], "gpkg"),
        (["3301010100.0", " ", None], "parquet"),
        ([3301010100.0, np.nan, np.nan], "gpkg"),
        ([3301010100, 3301010100, 3301010100], "shp"),
    ],
)
def test_codes_are_text_or_numbers_or_missing(tmp_path, values, suffix):
    shapes = [field(0, 0, 4, 20), field(8, 0, 12, 20), field(14, 0, 20, 20)]
    write_fields(tmp_path / f"f.{suffix}", shapes, values)
    code = LabelFields(tmp_path, CODES, "code").over(grid(), Path("chip.tif"))
    declared = [0, 1, 2] if values[1] == SOFT_WHEAT else [0]
    expected = np.full((20, 20), CODES.outside)
    for number in declared:
        expected[:, [(0, 4), (8, 12), (14, 20)][number][0] : (4, 12, 20)[number]] = SOFT_WHEAT
    np.testing.assert_array_equal(code, expected)


def test_fields_of_two_files_are_merged_and_ignored_ones_give_way(tmp_path):
    write_fields(tmp_path / "a.gpkg", [field(0, 0, 5, 20)], [UNSPECIFIED])
    write_fields(tmp_path / "b.shp", [field(3, 0, 9, 20)], [str(BARLEY)])
    lines = [LineString([(WEST, NORTH - 5), (WEST + 200, NORTH - 5)])]
    write_fields(tmp_path / "c.gpkg", lines, [SOFT_WHEAT])
    labels = open_labels(tmp_path, CODES, "code")
    code = labels.over(grid(), Path("chip.tif"))
    expected = [UNSPECIFIED] * 3 + [BARLEY] * 6 + [CODES.outside] * 11
    np.testing.assert_array_equal(code, [expected] * 20)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_faults_of_vector_files_are_named(tmp_path):
    shape = [field(0, 0, 9, 9)]
    for number, (values, crs, asked, message) in enumerate(
        [
            (["wheat"], "EPSG:3059", "code", "unknown code wheat"),
            ([42], "EPSG:3059", "code", "unknown code 42"),
            ([-1], "EPSG:3059", "code", "unknown code -1"),
            ([1 << 33], "EPSG:3059", "code", "unknown code 8589934592"),
            ([BARLEY], None, "code", "no projection"),
            ([BARLEY], "EPSG:3059", "EC_hcat_c", "no attribute EC_hcat_c .it has code"),
            ([BARLEY], "EPSG:3035", "code", "chip.tif lies under no label map"),
        ]
    ):
        path = tmp_path / str(number) / "f.gpkg"
        write_fields(path, shape, values, crs)
        with pytest.raises(InputError, match=message) as error:
            open_labels(path.parent, CODES, asked).over(grid(), Path("chip.tif"))
        assert "chip.tif" in str(error.value) or str(path) in str(error.value)


@pytest.mark.parametrize("name", ["f.gpkg", "f.shp", "f.parquet", "f.zip"])
def test_damaged_vector_files_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"GIF89a, they said")
    with pytest.raises(InputError, match=f"{name} cannot be read as polygons"):
        open_labels(tmp_path, CODES, "code")


def test_a_folder_without_vector_files_holds_rasters(tmp_path):
    codes = np.full((20, 20), 3, np.uint8)
    table = from_mapping({3: ("x", WHEAT), 4: ("y", IGNORE)})
    write_map(tmp_path / "a.tif", codes)
    assert isinstance(open_labels(tmp_path, table, "code"), LabelMaps)
    np.testing.assert_array_equal(
        open_labels(tmp_path, table, None).over(grid(), Path("chip.tif")), codes
    )


def test_of_rasters_that_overlap_the_first_that_is_not_ignored_wins(tmp_path):
    table = from_mapping({3: ("x", WHEAT), 4: ("y", IGNORE), 5: ("z", OTHER)})
    first, second = np.full((20, 20), 3, np.uint8), np.full((20, 12), 5, np.uint8)
    first[:, 6:] = 4
    write_map(tmp_path / "a.tif", first)
    write_map(tmp_path / "b.tif", second)
    code = LabelMaps(tmp_path, table).over(grid(30), Path("chip.tif"))
    expected = np.full((30, 30), 255)
    expected[:20, :20] = [3] * 6 + [5] * 6 + [4] * 8
    np.testing.assert_array_equal(code, expected)
    assert code.dtype == np.uint8


def write_map(path: Path, codes: np.ndarray) -> None:
    height, width = codes.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=height, width=width, dtype=codes.dtype,
        crs="EPSG:3059", transform=from_origin(WEST, NORTH, 10, 10),
    ) as file:  # fmt: skip
        file.write(codes, 1)


def test_masks_of_real_parcels_are_had_back(shared_data, tmp_path):
    """Uttar Pradesh: the published masks are these parcels' pixels, wheat 1 and mustard 2."""
    parcels = geopandas.read_file(shared_data / "up_india" / "parcels.gpkg")
    numbers = {"wheat": 1, "mustard": 2}
    parcels["code"] = [numbers[name.lower()] for name in parcels["name"]]
    parcels.to_file(tmp_path / "parcels.gpkg")
    codes = from_mapping({1: ("wheat", WHEAT), 2: ("mustard", OTHER)})
    labels = LabelFields(tmp_path, codes, "code")
    labelled = 0
    for path in sorted((shared_data / "up_india" / "masks").glob("*.tif")):
        with rasterio.open(path) as file:
            mask, chip = file.read(1), Grid(file.crs, file.transform, file.height, file.width)
        if mask.any():
            code = labels.over(chip, path)
            np.testing.assert_array_equal(np.where(code == codes.outside, 0, code), mask)
            labelled += np.count_nonzero(mask)
    assert labelled > 1000


@pytest.mark.parametrize("country", ["lv_2021_LV_2021", "si_2021_SI_2021"])
def test_real_eurocrops_archives_are_read(shared_data, tmp_path, country):
    """Oracle: geopandas, over a chip of the paper's grid in the middle of the parcels."""
    archive = shared_data / "labels" / "parcels_eu" / f"{country}.zip"
    shutil.copy(archive, tmp_path)
    with ZipFile(archive) as file:
        (member,) = (name for name in file.namelist() if name.endswith(".shp"))
    frame = geopandas.read_file(f"/vsizip/{archive}/{member}").to_crs("EPSG:3857")
    frame = frame[frame["EC_hcat_c"].notna()]
    codes: Codes = from_mapping({int(code): ("", OTHER) for code in set(frame["EC_hcat_c"])})
    middle = frame.geometry.iloc[len(frame) // 2].centroid
    chip = grid(256, "EPSG:3857", (middle.x - 1280, middle.y + 1280))
    expected = rasterize(
        [(g, int(c)) for g, c in zip(frame.geometry, frame["EC_hcat_c"], strict=True)],
        (256, 256), fill=codes.outside, transform=chip.transform, dtype="uint32",
    )  # fmt: skip
    code = LabelFields(tmp_path, codes, "EC_hcat_c").over(chip, Path("chip.tif"))
    assert (expected != codes.outside).any()
    np.testing.assert_array_equal(code, expected)
