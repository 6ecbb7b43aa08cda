import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
import rasterio
from jaxcrop_datasets.chips import find_chips
from jaxcrop_datasets.labels import LabelMaps
from jaxcrop_datasets.rasters import Grid
from jaxcrop_datasets.sact.sact_dataset_builder import Builder as Sact

from jaxcrop.crops import CROPS, IGNORE, WHEAT
from jaxcrop.data.bands import SENTINEL2_BANDS
from jaxcrop.data.landscapes import LANDSCAPES
from jaxcrop.data.spectra import COVERS, field_reflectance
from jaxcrop.data.synthetic import draw, write_region, write_scene
from jaxcrop.regions import REGIONS

SACT = Sact.code_table("standard")
PASTIS_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
B8, B4 = SENTINEL2_BANDS.index("B08"), SENTINEL2_BANDS.index("B04")


def ndvi(image):
    image = np.asarray(image, np.float64)
    return (image[..., B8] - image[..., B4]) / (image[..., B8] + image[..., B4])


@pytest.fixture(scope="module")
def africa(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "africa"
    write_region(out, "africa", 6, seed=3)
    return out


def test_region_is_what_the_published_files_are(africa):
    """Bands, their order, type, tags, projections; and no chip touches another."""
    chips = [path for chip in find_chips(africa / "chips")[0] for path in chip.paths]
    assert len(chips) == 6
    assert sorted(path.name for path in africa.iterdir()) == ["chips", "labels"]
    boxes = []
    for path in chips:
        with rasterio.open(path) as file:
            assert file.descriptions == Sact.FILE_BANDS
            assert file.dtypes == ("uint16",) * 13
            assert file.shape == (256, 256)
            assert file.crs.to_epsg() == 32734
            assert file.tags()["SYNTHETIC"] == "YES"
            assert file.tags()["ACQUISITION_DATE"].startswith("2017-0")
            medians = np.median(file.read().reshape(13, -1), axis=1)
            boxes.append(file.bounds)
        by_band = dict(zip(Sact.FILE_BANDS, medians, strict=True))
        assert by_band["B10"] < 60 < by_band["B09"] < by_band["B8A"]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = a.right <= b.left or b.right <= a.left or a.top <= b.bottom or b.top <= a.bottom
            assert apart
    for path in (africa / "labels").iterdir():
        with rasterio.open(path) as file:
            assert file.crs.to_epsg() == 32634
            assert file.shape > (256, 256)
            assert set(np.unique(file.read())) <= set(SACT.codes)


def test_seed_decides_the_pixels(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_region(tmp_path / name, "europe", 1, seed)
    (chip,) = (tmp_path / "a" / "chips").iterdir()

    def pixels(name):
        (path,) = (tmp_path / name / "chips").iterdir()
        with rasterio.open(path) as file:
            return file.read()

    assert chip.read_bytes() == (tmp_path / "b" / "chips" / chip.name).read_bytes()
    assert not np.array_equal(pixels("a"), pixels("c"))


def test_labels_lie_where_the_fields_are_seen(africa):
    """Warped to the chip as the builder does, wheat is greener than fallow land in every chip."""
    labels = LabelMaps(africa / "labels", SACT)
    compared = 0
    for _, (path,) in find_chips(africa / "chips")[0]:
        with rasterio.open(path) as file:
            label = labels.over(Grid(file.crs, file.transform, *file.shape), path)
            red, near_infrared = file.read([4, 8]).astype(float)
        index = (near_infrared - red) / (near_infrared + red)
        if min((label == 7).sum(), (label == 3).sum()) > 500:
            compared += 1
            assert np.median(index[label == 7]) > np.median(index[label == 3]) + 0.2
    assert compared


def test_africa_has_the_class_balance_of_its_dataset():
    """datasets_spec 4.7: 24 % of labelled pixels are wheat, 62 % of all are not labelled."""
    drawings = [draw("africa", 546, 546, (seed,)) for seed in range(6)]
    codes = np.stack([np.where(d.surveyed, d.code, 0) for d in drawings])
    crops = np.stack([np.where(d.surveyed, d.crop, IGNORE) for d in drawings])
    assert 0.4 < (crops == IGNORE).mean() < 0.7
    assert 0.2 < (crops == WHEAT).sum() / (crops != IGNORE).sum() < 0.4
    expected = SACT.classes[codes]
    np.testing.assert_array_equal(crops, expected)
    shares = np.bincount(codes.ravel(), minlength=10)[1:] / (codes > 0).sum()
    assert shares.min() > 0.005
    assert shares.max() > 2 * np.median(shares)


@pytest.mark.parametrize("region", REGIONS)
def test_regions_hold_their_classes(region):
    drawings = [draw(region, 400, 400, (seed,)) for seed in range(4)]
    seen = set(np.unique([d.crop for d in drawings])) - {IGNORE}
    assert seen == set(REGIONS[region].classes)
    assert all(d.day.year == REGIONS[region].year for d in drawings)


def test_regions_look_different():
    """Every two regions differ by more than half a standard deviation in the mean of some band."""
    sample = {r: draw(r, 540, 540, (1,)).image.reshape(-1, 13).astype(float) for r in LANDSCAPES}
    for (a, one), (b, other) in itertools.combinations(sample.items(), 2):
        shift = np.abs(one.mean(0) - other.mean(0)) / (one.std(0) + other.std(0)) * 2
        assert shift.max() > 0.5, (a, b)
    assert sample["north-america"].min() > 800  # the offset of baseline 04.00


def test_crops_are_hard_by_pixel_and_easier_by_neighbourhood():
    """A nearest mean of pixels is right for 60-85 %, a forest that sees 7 x 7 pixels for more."""
    ensemble = pytest.importorskip("sklearn.ensemble")
    neighbours = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(0)

    def sample(seed, count):
        drawing = draw("africa", 546, 546, (seed,))
        image = drawing.image.astype(np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(image, (7, 7), axis=(0, 1))
        crop = np.where(drawing.surveyed, drawing.crop, IGNORE)[3:-3, 3:-3]
        y, x = np.nonzero(crop)
        pick = rng.choice(len(y), count, replace=False)
        around = windows[y[pick], x[pick]]
        pixel = around[:, :, 3, 3]
        wide = np.concatenate([pixel, around.mean((2, 3)), around.std((2, 3))], axis=1)
        return pixel, wide, crop[y[pick], x[pick]]

    pixel, wide, crop = map(np.concatenate, zip(*(sample(s, 2500) for s in range(8)), strict=True))
    pixel2, wide2, crop2 = map(
        np.concatenate, zip(*(sample(s, 2500) for s in range(20, 24)), strict=True)
    )
    scale = pixel.std(0)
    by_mean = neighbours.NearestCentroid().fit(pixel / scale, crop).score(pixel2 / scale, crop2)
    forest = ensemble.RandomForestClassifier(40, min_samples_leaf=3, random_state=0)
    by_forest = forest.fit(wide, crop).score(wide2, crop2)
    assert 0.6 < by_mean < 0.85
    assert by_forest > 0.85
    assert by_forest > by_mean + 0.08


def test_scene_and_truth_share_a_grid_outside_all_chips(africa, tmp_path):
    write_scene(tmp_path, "africa", seed=3, height=200, width=310)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif", "truth.tif"]
    with (
        rasterio.open(tmp_path / "scene.tif") as scene,
        rasterio.open(tmp_path / "truth.tif") as truth,
    ):
        assert scene.shape == truth.shape == (200, 310)
        assert scene.transform == truth.transform
        assert scene.crs == truth.crs
        assert scene.descriptions == Sact.FILE_BANDS
        assert scene.tags()["SYNTHETIC"] == truth.tags()["SYNTHETIC"] == "YES"
        assert set(np.unique(truth.read())) <= {IGNORE, *REGIONS["africa"].classes}
        assert truth.colormap(1)[WHEAT] == (*CROPS[WHEAT].rgb, 255)
        bottom = scene.bounds.bottom
    for path in (africa / "chips").iterdir():
        with rasterio.open(path) as file:
            assert file.bounds.top < bottom


def test_a_failed_drawing_leaves_nothing(tmp_path, monkeypatch):
    from jaxcrop.data import synthetic

    def fail(*args):
        raise OSError("no space left")

    monkeypatch.setattr(synthetic, "_write_image", fail)
    with pytest.raises(OSError, match="no space"):
        write_region(tmp_path, "africa", 1, 0)
    assert list(tmp_path.iterdir()) == []


def pastis_medians(folder: Path, crop: str) -> tuple[np.ndarray, np.ndarray]:
    """Days of the year and median reflectance (date, band) of a crop's real pixels, cloud-free."""
    with open(folder / "legends" / "pastis.csv") as file:
        code = next(int(row["code"]) for row in csv.DictReader(file) if row["name"] == crop)
    days, medians = [], []
    for path in sorted((folder / "pastis_24px").glob("*.npz")):
        with np.load(path) as arrays:
            mine = arrays["labels"][0] == code
            if mine.sum() < 20:
                continue
            for day, image in zip(arrays["doy"], arrays["img"], strict=True):
                median = np.median(image[:, mine], axis=1) / 1e4
                if 0 < median[0] < 0.12 and image.min() > -10000:
                    days.append(int(day))
                    medians.append(median)
    return np.array(days), np.array(medians)


@pytest.mark.parametrize(
    ("cover", "crop", "peak"),
    [("wheat", "Soft Winter Wheat", 130), ("maize", "Corn", 215), ("soybean", "Soybeans", 215)],
)
def test_calendar_and_spectra_follow_real_parcels(shared_data, cover, crop, peak):
    """Against PASTIS: NDVI over the year correlates, and so does the spectrum at its peak."""
    days, medians = pastis_medians(shared_data, crop)
    real = (medians[:, 6] - medians[:, 2]) / (medians[:, 6] + medians[:, 2])
    season = (days > 75) & (days < 285)
    bins = np.arange(75, 285, 21)
    which = np.digitize(days[season], bins)
    present = np.unique(which)
    real_curve = [np.median(real[season][which == b]) for b in present]
    drawn_curve = [
        np.mean([ndvi(field_reflectance(COVERS[cover], day)) for day in days[season][which == b]])
        for b in present
    ]
    assert np.corrcoef(real_curve, drawn_curve)[0, 1] > 0.8
    near = np.abs(days - peak) < 20
    indices = [SENTINEL2_BANDS.index(band) for band in PASTIS_BANDS]
    drawn = field_reflectance(COVERS[cover], peak)[indices]
    greenest = near & (real >= np.quantile(real[near], 0.5))
    observed = np.median(medians[greenest], axis=0)
    assert np.corrcoef(drawn, observed)[0, 1] > 0.97
    assert np.abs(drawn - observed).max() < 0.08


def test_seasons_order_the_crops_as_real_parcels_do(shared_data):
    """Wheat is greener than maize and soybean in spring, and the other way round in August."""
    pairs = {"wheat": "Soft Winter Wheat", "maize": "Corn", "soybean": "Soybeans"}
    for day in (140, 225):
        drawn = {c: ndvi(field_reflectance(COVERS[c], day)) for c in pairs}
        real = {}
        for cover, crop in pairs.items():
            days, medians = pastis_medians(shared_data, crop)
            near = medians[np.abs(days - day) < 15]
            real[cover] = np.median((near[:, 6] - near[:, 2]) / (near[:, 6] + near[:, 2]))
        for summer in ("maize", "soybean"):
            assert np.sign(drawn["wheat"] - drawn[summer]) == np.sign(real["wheat"] - real[summer])
