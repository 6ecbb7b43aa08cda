"""Cutting chips from small products and a real one. Oracles: rasterio on the files, the rules."""

import json
import pickle
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from jaxcrop_datasets import cutting
from jaxcrop_datasets.codes import from_mapping
from jaxcrop_datasets.crop_chips import build_records
from jaxcrop_datasets.cutting import ChipCutter, cut
from jaxcrop_datasets.labels import open_labels
from jaxcrop_datasets.radiometry import cloudy_share
from jaxcrop_datasets.sact.sact_dataset_builder import Builder as Sact
from jaxcrop_datasets.scenes import Scene, find_scenes
from jaxcrop_datasets.tiling import Tile
from made_up_products import CRS, NORTH, WEST, draw, write_plain, write_safe
from rasterio.features import rasterize
from rasterio.transform import from_origin
from shapely.geometry import box

from jaxcrop.crops import IGNORE, MAIZE, OTHER, WHEAT
from jaxcrop.data.bands import SENTINEL2_BANDS
from jaxcrop.errors import InputError

CODES = from_mapping(
    {0: ("none", IGNORE), 1: ("maize", MAIZE), 2: ("wheat", WHEAT), 3: ("other", OTHER)}
)
SIDE = 660  # pixels of 10 m: two tiles and some, for these are 2.1 km at 33 degrees south


def write_labels(path: Path, codes: np.ndarray, metres: float = 30.0, at=(WEST, NORTH)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = codes.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=height, width=width, dtype=codes.dtype,
        crs=CRS, transform=from_origin(*at, metres, metres),
    ) as file:  # fmt: skip
        file.write(codes, 1)


def bands(**others: int) -> dict[str, np.ndarray]:
    """Of every band the same digital numbers but those of some, which differ little by place."""
    drawn = draw("1C", SIDE)
    flat = {band: np.full_like(pixels, 1200) for band, pixels in drawn.items()}
    flat["B04"] = drawn["B04"]
    return flat | {band: np.full_like(flat[band], value) for band, value in others.items()}


@pytest.fixture(scope="module")
def region(tmp_path_factory) -> Path:
    """Scenes of three days, of which the first is cloudy and the last half missing, and labels."""
    folder = tmp_path_factory.mktemp("region")
    half = bands(B10=1010)
    half["B12"][:, 225:] = 0
    cloudy = bands(B02=6000, B03=6000, B10=1010)
    for day, shown in (("01", cloudy), ("11", bands(B10=1010)), ("21", half)):
        scene = write_plain(folder / "scenes" / day, shown)
        product = {"PRODUCT_ID": f"S2A_MSIL1C_202307{day}", "RADIO_ADD_OFFSET_B1": -1000}
        (scene / "metadata.json").write_text(json.dumps(product))
    codes = np.random.default_rng(0).choice([1, 2, 3], (220, 220)).astype(np.uint8)
    codes[:, :30] = 3
    write_labels(folder / "labels" / "map.tif", codes)
    return folder


def run(region: Path, out: Path, **settings) -> int:
    return cut(region / "scenes", region / "labels", out, CODES, year=2023, **settings)


def read(path: Path) -> tuple[np.ndarray, dict, tuple]:
    with rasterio.open(path) as file:
        return file.read(), file.tags(), (file.crs, file.transform, file.descriptions)


def test_chips_hold_the_least_cloudy_scene_and_the_codes_under_it(region, tmp_path):
    made = run(region, tmp_path, chips=50)
    names = sorted(path.stem for path in (tmp_path / "chips").iterdir())
    assert made == len(names) >= 2
    assert names == sorted(path.stem for path in (tmp_path / "labels").iterdir())
    labels = open_labels(region / "labels", CODES, None)
    scenes = {scene.day: scene for scene in find_scenes(region / "scenes")}
    for name in names:
        grid = Tile.of_name(name).grid
        image, tags, (crs, transform, descriptions) = read(tmp_path / "chips" / f"{name}.tif")
        assert (crs, transform, descriptions) == (grid.crs, grid.transform, SENTINEL2_BANDS)
        best = scenes[tags["ACQUISITION_DATE"]]
        assert best.day in ("2023-07-11", "2023-07-21")
        assert (tags["PRODUCT"], tags["RADIO_ADD_OFFSET"]) == (best.name, "-1000")
        np.testing.assert_array_equal(image, np.moveaxis(best.read(grid), -1, 0))
        assert (image > 0).mean() >= 0.99
        raw, _, _ = read(tmp_path / "labels" / f"{name}.tif")
        np.testing.assert_array_equal(raw[0], labels.over(grid, tmp_path))
        assert raw.dtype == np.uint8
        # The rule of datasets_spec section 5: of 32 x 32 pixels at least 128 are a crop.
        assert np.isin(raw[0, ::8, ::8], (1, 2)).sum() >= 128
    tile = Tile.of_name(names[0])
    assert cloudy_share(scenes["2023-07-01"].read(tile.grid) - 1000, SENTINEL2_BANDS) == 1


def test_the_first_of_a_seed_are_taken_and_the_next_follow(region, tmp_path):
    every = {}
    for seed in (0, 1):
        names = []
        for chips in (1, 2):
            assert run(region, tmp_path / str(seed), chips=chips, seed=seed) == chips
            names.append({path.name for path in (tmp_path / str(seed) / "chips").iterdir()})
        assert names[0] < names[1]
        run(region, tmp_path / f"again{seed}", chips=2, seed=seed, workers=1)
        again = {path.name for path in (tmp_path / f"again{seed}" / "chips").iterdir()}
        assert names[1] == again
        every[seed] = names[0]
    assert every[0] != every[1]


def test_a_run_that_was_killed_goes_on(region, tmp_path, monkeypatch):
    """Killed as the second chip is written: what is left is whole, and the rest is made anew."""
    write = cutting._write_image
    calls = []

    def killed(path, *rest):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half a chip")
            raise KeyboardInterrupt
        write(path, *rest)

    monkeypatch.setattr(cutting, "_write_image", killed)
    with pytest.raises(KeyboardInterrupt):
        run(region, tmp_path / "out", chips=3, workers=1)
    monkeypatch.undo()
    (first,) = (tmp_path / "out" / "chips").glob("*.tif")
    written = first.stat().st_mtime_ns
    assert run(region, tmp_path / "out", chips=3) == 3
    assert first.stat().st_mtime_ns == written
    run(region, tmp_path / "whole", chips=3)
    for path in (tmp_path / "whole").rglob("*.tif"):
        other = tmp_path / "out" / path.relative_to(tmp_path / "whole")
        assert other.read_bytes() == path.read_bytes()
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_chip_of_several_dates_is_a_folder_of_the_best(region, tmp_path):
    made = run(region, tmp_path, chips=50, dates=2)
    folders = sorted((tmp_path / "chips").iterdir())
    assert made == len(folders)
    days = {folder.name: sorted(path.stem for path in folder.iterdir()) for folder in folders}
    assert all(len(found) == 2 and "2023-07-11" in found for found in days.values())
    for folder in folders:
        for path in folder.iterdir():
            assert read(path)[1]["ACQUISITION_DATE"] == path.stem
    assert run(region, tmp_path, chips=50, dates=2) == made
    # Three days cover only what the scene that is half missing holds.
    assert run(region, tmp_path / "three", chips=50, dates=3) < made


def test_other_settings_do_not_mix_into_a_folder(region, tmp_path):
    run(region, tmp_path, chips=1)
    with pytest.raises(InputError, match=r"cut\.json says that these chips were cut otherwise"):
        run(region, tmp_path, chips=1, dates=2)


def test_codes_of_fields_are_cut_as_they_are(region, tmp_path):
    wheat, rye = 3301010101, 3301010301
    codes = from_mapping({wheat: ("wheat", WHEAT), rye: ("rye", OTHER)})
    strips = [
        box(WEST + 200 * i, NORTH - 6600, WEST + 200 * i + 150, NORTH) for i in range(33)
    ]  # fmt: skip
    fields = geopandas.GeoDataFrame(
        {"EC_hcat_c": [str(rye), str(wheat), str(wheat)] * 11}, geometry=strips, crs=CRS
    )
    (tmp_path / "fields").mkdir()
    fields.to_file(tmp_path / "fields" / "f.shp")
    made = cut(
        region / "scenes", tmp_path / "fields", tmp_path / "out", codes, field="EC_hcat_c",
        year=2021, chips=1,
    )  # fmt: skip
    assert made == 1
    (path,) = (tmp_path / "out" / "labels").iterdir()
    grid = Tile.of_name(path.stem).grid
    expected = rasterize(
        zip(fields.to_crs(grid.crs).geometry, fields["EC_hcat_c"].astype(int), strict=True),
        (256, 256), fill=codes.outside, transform=grid.transform, dtype="uint32",
    )  # fmt: skip
    np.testing.assert_array_equal(read(path)[0][0], expected)
    again = open_labels(tmp_path / "out" / "labels", codes, "EC_hcat_c").over(grid, path)
    np.testing.assert_array_equal(again, expected)
    assert set(np.unique(expected)) == {wheat, rye, codes.outside}


def test_the_cutter_can_be_sent_to_another_process(region, tmp_path):
    labels = open_labels(region / "labels", CODES, None)
    scenes = tuple(find_scenes(region / "scenes"))
    cutter = ChipCutter(scenes, labels, CODES, tmp_path, 2023, dates=1, min_valid=0.99)
    for name in ("chips", "labels"):
        (tmp_path / name).mkdir()
    copy = pickle.loads(pickle.dumps(cutter))
    assert copy.tiles() == cutter.tiles()
    found = [tile for tile in copy.tiles() if copy.cut(tile)]
    assert [(tmp_path / "chips" / f"{tile.name(2023)}.tif").exists() for tile in found]
    assert found


def test_no_offset_is_said_where_the_product_says_none(region, tmp_path):
    write_plain(tmp_path / "scenes" / "T34HCH_20230711", bands(B10=12))
    shutil.copytree(region / "labels", tmp_path / "labels")
    run(tmp_path, tmp_path / "out", chips=1)
    (chip,) = (tmp_path / "out" / "chips").iterdir()
    assert "RADIO_ADD_OFFSET" not in read(chip)[1]


def test_places_without_crops_or_scenes_are_named(region, tmp_path):
    write_labels(tmp_path / "labels" / "far.tif", np.ones((9, 9), np.uint8), at=(WEST, NORTH + 1e6))
    with pytest.raises(InputError, match="no place under the scenes"):
        cut(region / "scenes", tmp_path / "labels", tmp_path / "a", CODES, year=2023)
    write_labels(tmp_path / "labels" / "other.tif", np.full((220, 220), 3, np.uint8))
    with pytest.raises(InputError, match="no place under the scenes"):
        cut(region / "scenes", tmp_path / "labels", tmp_path / "b", CODES, year=2023)
    write_labels(tmp_path / "labels" / "strange.tif", np.full((220, 220), 77, np.uint8))
    with pytest.raises(InputError, match=r"strange\.tif holds the unknown code 77"):
        cut(region / "scenes", tmp_path / "labels", tmp_path / "c", CODES, year=2023)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        run(region, tmp_path / "file")
    write_safe(tmp_path / "both", draw("1C", 60))
    write_safe(tmp_path / "both", draw("2A", 60), level="2A")
    with pytest.raises(InputError, match="L1C and L2A"):
        cut(tmp_path / "both", tmp_path / "labels", tmp_path / "d", CODES, year=2023)


def test_chips_of_a_real_scene_are_built(shared_data, tmp_path):
    """From a real L2A scene to records; its labels are drawn, for none lie under it."""
    (scene,) = find_scenes(shared_data / "scenes")
    codes = np.random.default_rng(1).choice([0, 4, 7], (360, 360), p=[0.2, 0.4, 0.4])
    path = tmp_path / "labels" / "drawn.tif"
    path.parent.mkdir()
    west, _, _, north = scene.grid.bounds
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=360, width=360, dtype="uint8",
        crs=scene.grid.crs, transform=from_origin(west, north, 30, 30),
    ) as file:  # fmt: skip
        file.write(codes.astype(np.uint8), 1)
    table = Sact.code_table("standard")
    made = cut(shared_data / "scenes", path.parent, tmp_path / "cut", table, year=2020, chips=4)
    assert made == 4
    builder = build_records(Sact, tmp_path / "cut", tmp_path / "records", variant="standard-l2a")
    records = [
        record
        for split in ("train", "validation", "test")
        for record in builder.as_data_source(split=split)
    ]
    assert len(records) == 4
    for record in records:
        assert list(record["dates"]) == [b"2020-02-23"]
        assert (record["image"] > 0).mean() > 0.99
        assert (list(record["offset"]), record["nodata"][0]) == ([0], 0)


@pytest.mark.parametrize("wrong", [{"chips": 0}, {"dates": 0}])
def test_no_chips_of_no_dates(region, tmp_path, wrong):
    with pytest.raises(InputError, match="ask for at least one of each"):
        run(region, tmp_path, **wrong)


def test_settings_that_made_no_chip_do_not_bind(region, tmp_path):
    with pytest.raises(InputError, match="no place under the scenes"):
        run(region, tmp_path, dates=9)
    assert run(region, tmp_path, chips=1) == 1


def test_no_more_scenes_are_looked_at_than_it_needs(region, tmp_path, monkeypatch):
    """A clear scene is beyond improvement: the cloudier ones by their metadata stay closed."""
    shutil.copytree(region / "scenes", tmp_path / "scenes")
    shutil.copytree(region / "labels", tmp_path / "labels")
    for day, percent in (("01", 80), ("11", 1), ("21", 40)):
        path = tmp_path / "scenes" / day / "metadata.json"
        stated = json.loads(path.read_text()) | {"CLOUDY_PIXEL_PERCENTAGE": percent}
        path.write_text(json.dumps(stated))
    read_scene, days = Scene.read, set()
    monkeypatch.setattr(Scene, "read", lambda s, *a: (days.add(s.day), read_scene(s, *a))[1])
    run(tmp_path, tmp_path / "out", chips=1)
    assert days == {"2023-07-11"}
