import made_up_records as made_up
import numpy as np
import pytest
from rasterio.warp import transform

from jaxcrop.data.index import index_of
from jaxcrop.errors import InputError

PLACES = (
    ("2023_-3894_-2037", "EPSG:3857", -9_968_640.0, 5_214_720.0, (10.0, 10.0)),
    ("utm", "EPSG:32734", 310_000.0, 6_350_000.0, (10.0, 10.0)),
    ("albers", "EPSG:5070", 0.0, 1_800_000.0, (30.0, 30.0)),
    ("degrees", "EPSG:4326", 179.99, 60.0, (0.002, 0.001)),
)


@pytest.fixture(scope="module")
def chips():
    """Four chips of two dates in four projections; some pixels of the first have no data."""
    rng = np.random.default_rng(1)
    found = []
    for seed, (chip_id, crs, west, north, pixel) in enumerate(PLACES):
        code = rng.choice([0, 1, 5, 24, 36], (12, 16))
        chip = made_up.record(
            chip_id, code, seed=seed, crs=crs, west=west, north=north, pixel=pixel,
            dates=("2023-07-10", "2023-08-01"), offset=np.int32([1000, 0]),
            offset_source=[b"pixels", b"metadata"], cloudy=np.float32([0.25, np.nan]),
        )  # fmt: skip
        found.append(chip)
    found[0]["image"][0, :5, :7] = 0
    found[0]["image"][..., 10] = 0  # a band of zeros is data, where others are not
    return found


@pytest.fixture(scope="module")
def index(chips, tmp_path_factory):
    splits = {"train": chips[:3], "validation": [], "test": chips[3:]}
    return index_of(made_up.records(tmp_path_factory.mktemp("records"), splits))


def test_rows_are_sorted_and_lead_back_to_the_records(index):
    assert index.chip_id.tolist() == ["2023_-3894_-2037", "albers", "degrees", "utm"]
    assert index.positions(["utm", "degrees"]) == [("train", 1), ("test", 0)]
    assert index.dates[0] == ("2023-07-10", "2023-08-01")
    assert index.offset[0] == (1000, 0)
    assert index.offset_source[0] == ("pixels", "metadata")
    np.testing.assert_array_equal(index.cloudy[0], [0.25, np.nan])
    with pytest.raises(InputError, match=r"no chip a, b, c and 1 more: build"):
        index.rows(["utm", "a", "b", "c", "d"])


def test_places_on_the_earth_are_those_of_pyproj(index):
    """Centre, box, and the area on the ground: that of the ellipsoid, not of the projection."""
    pyproj = pytest.importorskip("pyproj")
    for chip_id, crs, west, north, (width, height) in PLACES:
        (row,) = index.rows([chip_id])
        east, south = west + 16 * width, north - 12 * height
        assert index.box[row] == pytest.approx((west, south, east, north))
        assert index.crs[row] == crs
        to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        centre = to_degrees.transform((west + east) / 2, (south + north) / 2)
        assert (index.lon[row], index.lat[row]) == pytest.approx(centre, abs=1e-9)
        rim = np.linspace(0, 1, 20)
        ring_x = np.r_[west + rim * (east - west), np.full(20, east), east - rim * (east - west)]
        ring_y = np.r_[np.full(20, south), south + rim * (north - south), np.full(20, north)]
        lon, lat = to_degrees.transform(ring_x, ring_y)
        area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)
        assert index.pixel_hectares[row] * 12 * 16 == pytest.approx(abs(area) / 1e4, rel=2e-4)
        lons, lats = transform(crs, "EPSG:4326", [west, east], [(south + north) / 2] * 2)
        _, _, length = pyproj.Geod(ellps="WGS84").inv(lons[0], lats[0], lons[1], lats[1])
        assert index.ground[row, 0] == pytest.approx(length, rel=1e-4)


def test_statistics_leave_out_pixels_without_data(index, chips):
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for row, chip in zip(index.rows([place[0] for place in PLACES]), chips, strict=True):
        pixels = np.concatenate([day.reshape(-1, 13) for day in chip["image"]])
        pixels = pixels[pixels.max(axis=1) > 0]
        assert index.valid[row] == len(pixels)
        np.testing.assert_array_equal(index.minimum[row], pixels.min(axis=0))
        labels, counts = np.unique(chip["label"], return_counts=True)
        np.testing.assert_array_equal(np.flatnonzero(index.counts[row]), labels)
        np.testing.assert_array_equal(index.counts[row][labels], counts)
        scaler.partial_fit(pixels.astype(np.float64))
    mean, std = index.mean_and_std()
    np.testing.assert_allclose(mean, scaler.mean_)
    np.testing.assert_allclose(std, scaler.var_**0.5)
    one, _ = index.mean_and_std(["utm"])
    np.testing.assert_allclose(one, chips[1]["image"].reshape(-1, 13).mean(axis=0))


def test_the_index_is_kept_until_the_records_are_others(chips, tmp_path):
    records = made_up.records(tmp_path, {"train": chips[:2], "test": chips[2:]})
    first = index_of(records)
    assert [path.name for path in tmp_path.iterdir()] == ["chips.parquet"]

    def never(split):
        raise AssertionError(f"{split} is read again")

    records.raw = never
    again = index_of(records)
    for name, column in vars(first).items():
        np.testing.assert_array_equal(getattr(again, name), column, name)
    for change in ({"version": "2.0.1"}, {"sizes": {"train": 2}}, {"bands": ("B02",)}):
        other = made_up.records(tmp_path, {})
        other.__dict__.update({**vars(records), **change})
        with pytest.raises(AssertionError, match="read again"):
            index_of(other)


def test_a_damaged_index_and_a_folder_that_cannot_be_written(chips, tmp_path):
    records = made_up.records(tmp_path, {"train": chips})
    whole = index_of(records)
    path = tmp_path / "chips.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    np.testing.assert_array_equal(index_of(records).total, whole.total)
    records.folder = tmp_path / "missing"
    np.testing.assert_array_equal(index_of(records).total, whole.total)
    assert not records.folder.exists()
