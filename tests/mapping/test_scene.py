import subprocess
import sys
import tracemalloc
from contextlib import ExitStack

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from jaxcrop.crops import CROPS
from jaxcrop.data.bands import SENTINEL2_BANDS, BandInput
from jaxcrop.errors import InputError
from jaxcrop.mapping.scene import map_scene

TWO = BandInput.scaled(("B04", "B08"))
SATLAS = ("B04", "B03", "B02", "B05", "B06", "B07", "B08", "B11", "B12")


def random_pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(1, 10_000, (2, height, width)).astype(np.uint16)


def pixel_logits(dn):
    """A network that sees one pixel at a time: six linear functions of two bands."""
    red, near = dn[..., 0].astype(np.float32), dn[..., 1].astype(np.float32)
    planes = (99 * red, near - red, red - near, red + near - 9000, 5000 - red, 5500 - near)
    return np.stack(planes, axis=-1) / 1000


def place_logits(dn):
    """A network that looks at where in its window a pixel lies, and less at the pixel."""
    line = np.linspace(-1, 1, dn.shape[1], dtype=np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    place = [np.sin(3 * k * x + k) + np.cos(2 * k * y) + (x**4 + y**4) * (k % 3) for k in range(6)]
    return np.stack(place, axis=-1) + dn[..., :1] / np.float32(5000) * np.arange(6)


def ndvi_logits(dn):
    """Classes 1 to 3 by two thresholds of NDVI, from red and near infrared in that order."""
    red, near = dn[..., 0].astype(np.float32), dn[..., 1].astype(np.float32)
    ndvi = (near - red) / np.maximum(near + red, 1)
    low, high = np.float32(0.25), np.float32(0.5)
    classes = (ndvi >= low).astype(int) + (ndvi >= high) + 1
    return np.eye(6, dtype=np.float32)[classes] * 8


def ndvi_classes(red, near):
    """The same thresholds by whole numbers: 4 (near - red) >= near + red, and so on."""
    red, near = red.astype(np.int64), near.astype(np.int64)
    total = np.maximum(near + red, 1)
    return 1 + (4 * (near - red) >= total) + (2 * (near - red) >= total)


def read(path):
    with rasterio.open(path) as source:
        return source.read(1)


def listing(folder):
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("shape", [(1, 1), (31, 500), (257, 255), (1000, 700)])
@pytest.mark.parametrize("tiling", [(256, 64), (64, 0), (96, 48)])
def test_a_pixelwise_network_maps_as_if_in_one_piece(write_scene, tmp_path, shape, tiling):
    image = random_pixels(*shape)
    out = tmp_path / "map.tif"
    window, overlap = tiling
    summary = map_scene(
        pixel_logits, TWO, write_scene(image), out, window=window, overlap=overlap, batch_size=3
    )
    logits = pixel_logits(np.moveaxis(image, 0, -1))[..., 1:].astype(np.float64)
    second, first = np.sort(logits, axis=-1)[..., -2:].transpose(2, 0, 1)
    decided = first - second > 1e-5  # float32 cannot tell closer ones apart once exponentiated
    result = read(out)
    assert result.shape == shape
    assert decided.mean() > 0.99
    np.testing.assert_array_equal(result[decided], logits.argmax(axis=-1)[decided] + 1)
    assert sum(summary.pixels) == image[0].size
    assert summary.pixels == tuple(np.bincount(result.ravel(), minlength=6).tolist())


def whole_scene(image, window, overlap):
    """What `map_scene` ought to blend, accumulated over whole arrays in float64."""
    _, height, width = image.shape
    near_edge = np.minimum(np.arange(window), np.arange(window)[::-1]) + 0.5
    line = np.where(near_edge < overlap, 0.5 - 0.5 * np.cos(np.pi * near_edge / overlap), 1.0)
    weight = np.outer(line, line)[..., None]
    starts = [
        sorted({min(start, length - window) for start in range(0, length, window - overlap)})
        for length in (height, width)
    ]
    total, norm = np.zeros((height, width, 5)), np.zeros((height, width, 1))
    for row in starts[0]:
        for column in starts[1]:
            place = (slice(row, row + window), slice(column, column + window))
            dn = np.moveaxis(image[:, *place], 0, -1)
            share = np.exp(place_logits(dn[None])[0, ..., 1:].astype(np.float64))
            total[place] += weight * share / share.sum(axis=-1, keepdims=True)
            norm[place] += weight
    return total / norm


def test_a_network_with_border_effects_blends_without_seams(write_scene, tmp_path):
    image = random_pixels(400, 530)
    out, confidence = tmp_path / "map.tif", tmp_path / "confidence.tif"
    scene = write_scene(image)
    map_scene(place_logits, TWO, scene, out, confidence=confidence, window=128, overlap=48)
    expected = whole_scene(image, 128, 48)
    second, first = np.sort(expected, axis=-1)[..., -2:].transpose(2, 0, 1)
    decided = first - second > 1e-5
    assert decided.mean() > 0.99
    np.testing.assert_array_equal(read(out)[decided], expected.argmax(axis=-1)[decided] + 1)
    np.testing.assert_allclose(read(confidence), 100 * first, atol=0.501)


def test_blending_has_no_jumps_at_window_borders(write_scene, tmp_path):
    flat = np.full((2, 400, 530), 500, np.uint16)
    scene = write_scene(flat)
    jumps = {}
    for overlap in (0, 48):
        out, confidence = tmp_path / "map.tif", tmp_path / "confidence.tif"
        map_scene(place_logits, TWO, scene, out, confidence=confidence, window=128, overlap=overlap)
        jumps[overlap] = np.abs(np.diff(read(confidence).astype(int), axis=1)).max()
    assert jumps[0] >= 25  # hard cuts show
    assert jumps[48] <= 8


def test_bit_identical_whatever_the_batch_size(write_scene, tmp_path):
    scene = write_scene(random_pixels(300, 420))
    maps = set()
    for batch_size in (1, 2, 3, 5, 64):
        out, confidence = tmp_path / "map.tif", tmp_path / "confidence.tif"
        map_scene(
            place_logits, TWO, scene, out,
            confidence=confidence, window=96, overlap=32, batch_size=batch_size,
        )  # fmt: skip
        maps.add((out.read_bytes(), confidence.read_bytes()))
    assert len(maps) == 1


def test_every_batch_has_the_same_shape_and_type(write_scene, tmp_path):
    shapes, progress = set(), []

    def logits_fn(dn):
        shapes.add((dn.shape, dn.dtype))
        return pixel_logits(dn)

    map_scene(
        logits_fn, TWO, write_scene(random_pixels(100, 130)), tmp_path / "map.tif",
        window=64, overlap=16, batch_size=5, progress=lambda *state: progress.append(state),
    )  # fmt: skip
    assert shapes == {((5, 64, 64, 2), np.dtype(np.uint16))}
    assert progress == [(5, 6), (6, 6)]


def test_a_jitted_function_compiles_once(write_scene, tmp_path):
    jax = pytest.importorskip("jax")
    traces = []

    @jax.jit
    def logits_fn(dn):
        traces.append(dn.shape)
        return jax.numpy.stack([dn[..., 0].astype("bfloat16") * k for k in range(6)], axis=-1)

    scene = write_scene(random_pixels(100, 130))
    map_scene(logits_fn, TWO, scene, tmp_path / "map.tif", window=64, overlap=16)
    assert traces == [(4, 64, 64, 2)]
    assert (read(tmp_path / "map.tif") == 5).all()


def test_a_scene_beside_its_window_is_mirrored(write_scene, tmp_path):
    image = random_pixels(20, 40)
    seen = []

    def logits_fn(dn):
        seen.append(dn)
        return pixel_logits(dn)

    map_scene(logits_fn, TWO, write_scene(image), tmp_path / "map.tif", window=32, overlap=0)
    (dn,) = seen
    rows = [*range(20), *range(18, 6, -1)]
    np.testing.assert_array_equal(dn[0], np.moveaxis(image[:, rows, :32], 0, -1))
    np.testing.assert_array_equal(dn[1], np.moveaxis(image[:, rows, 8:], 0, -1))
    assert not dn[2:].any()


def test_no_data_becomes_class_0_and_nothing_else_does(write_scene, tmp_path):
    image = random_pixels(300, 300)
    image[:, :200, :170] = 0  # whole windows
    image[:, 250, 250:260] = 0
    calls = []

    def logits_fn(dn):
        calls.append(dn)
        return pixel_logits(dn)

    out, confidence = tmp_path / "map.tif", tmp_path / "confidence.tif"
    summary = map_scene(
        logits_fn, TWO, write_scene(image), out,
        confidence=confidence, window=64, overlap=32, batch_size=1,
    )  # fmt: skip
    empty = (image == 0).all(axis=0)
    np.testing.assert_array_equal(read(out) == 0, empty)
    np.testing.assert_array_equal(read(confidence) == 0, empty)
    assert read(confidence)[~empty].min() >= 20  # five classes
    assert summary.pixels[0] == empty.sum()
    assert all(dn.any() for dn in calls)  # windows without data do not reach the network


def test_a_scene_of_no_data_at_all(write_scene, tmp_path):
    scene = write_scene(np.zeros((2, 50, 60), np.uint16))
    summary = map_scene(pixel_logits, TWO, scene, tmp_path / "map.tif")
    assert summary.pixels == (3000, 0, 0, 0, 0, 0)
    assert not read(tmp_path / "map.tif").any()
    assert "no data" in str(summary)


def test_map_and_confidence_are_what_they_say(write_scene, tmp_path):
    scene = write_scene(random_pixels(600, 530))
    out, confidence = tmp_path / "map.tif", tmp_path / "confidence.tif"
    summary = map_scene(pixel_logits, TWO, scene, out, confidence=confidence)
    for path in (out, confidence):
        with rasterio.open(path) as written, rasterio.open(scene) as source:
            assert written.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert (written.crs, written.transform) == (source.crs, source.transform)
            assert (written.shape, written.count) == (source.shape, 1)
            assert (written.dtypes, written.nodata) == (("uint8",), 0)
    with rasterio.open(out) as written:
        assert written.descriptions == ("crop type",)
        assert [written.colormap(1)[k][:3] for k in range(6)] == [crop.rgb for crop in CROPS]
        assert [written.tags()[f"class_{k}"] for k in range(6)] == [crop.name for crop in CROPS]
        assert np.isin(written.read(1, out_shape=(300, 265)), range(1, 6)).all()
    # UTM pixels of 10 m, 1 degree east of the central meridian: 0.04% larger than 100 m².
    np.testing.assert_allclose(summary.hectares, np.array(summary.pixels) / 100, rtol=1e-3)
    assert "maize" in str(summary)
    assert listing(tmp_path) == ["confidence.tif", "map.tif", "scene.tif"]


def test_memory_does_not_grow_with_height(write_scene, tmp_path):
    peaks = []
    for height in (1500, 6000):
        scene = write_scene(random_pixels(height, 512), name=f"{height}.tif", tiled=True)
        tracemalloc.start()
        map_scene(pixel_logits, TWO, scene, tmp_path / "map.tif", window=128, overlap=32)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_a_failure_half_way_leaves_nothing(write_scene, tmp_path, failure):
    calls = []

    def logits_fn(dn):
        calls.append(dn)
        if len(calls) == 5:
            raise failure
        return pixel_logits(dn)

    scene = write_scene(random_pixels(300, 300))
    with pytest.raises(failure):
        map_scene(logits_fn, TWO, scene, tmp_path / "map.tif", window=64, overlap=0)
    assert listing(tmp_path) == ["scene.tif"]


def test_a_scene_truncated_in_its_last_rows_leaves_nothing(write_scene, tmp_path):
    scene = write_scene(random_pixels(600, 300))
    scene.write_bytes(scene.read_bytes()[:-50_000])
    with pytest.raises(InputError, match=r"scene.tif cannot be read in rows \d+ to 599"):
        map_scene(pixel_logits, TWO, scene, tmp_path / "map.tif", confidence=tmp_path / "c.tif")
    assert listing(tmp_path) == ["scene.tif"]


def test_a_network_gone_wrong_is_refused(write_scene, tmp_path):
    def logits_fn(dn):
        logits = pixel_logits(dn)
        logits[1, 3, 4, 2] = np.nan
        return logits

    scene = write_scene(random_pixels(100, 100))
    with pytest.raises(InputError, match=r"window at row 0, column 36 of .* is not finite"):
        map_scene(logits_fn, TWO, scene, tmp_path / "map.tif", window=64, overlap=0)
    assert listing(tmp_path) == ["scene.tif"]


def test_logits_of_another_shape_are_refused(write_scene, tmp_path):
    scene = write_scene(random_pixels(64, 64))
    with pytest.raises(ValueError, match=r"gave \(32, 32, 6\) for one window"):
        map_scene(
            lambda dn: pixel_logits(dn)[:, ::2, ::2], TWO, scene, tmp_path / "map.tif", window=64,
            overlap=0,
        )  # fmt: skip


def refuse_to_work(dn):
    raise AssertionError("the network ran")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"window": 100}, "window 100 is not a multiple of 32"),
        ({"overlap": 200}, "overlap 200 does not suit"),
        ({"batch_size": 0}, "batch size 0 is not"),
        ({"offset": -1000}, "offset -1000 is not"),
        ({"bands": ["B04"]}, "has 2 bands but 1 names are given"),
        ({"bands": ["B04", "B03"]}, "lacks band B08"),
        ({"out": "absent/map.tif"}, "absent/map.tif cannot be written"),
        ({"out": "scene.tif"}, "need a file each"),
        ({"out": "map.jpg"}, "map.jpg would be a GeoTIFF"),
        ({"confidence": "map.tif"}, "need a file each"),
        ({"confidence": "absent/c.tif"}, "absent/c.tif cannot be written"),
        ({"scene": "no.tif"}, "no.tif is not a file"),
    ],
)
def test_bad_input_is_refused_before_any_work(write_scene, tmp_path, options, sentence):
    write_scene(random_pixels(40, 40))
    paths = {"scene": "scene.tif", "out": "map.tif", **options}
    for name in paths.keys() & {"scene", "out", "confidence"}:
        paths[name] = tmp_path / paths[name]
    with pytest.raises(InputError, match=sentence):
        map_scene(refuse_to_work, TWO, **paths)
    assert listing(tmp_path) == ["scene.tif"]


def test_mapping_needs_no_jax():
    code = "import sys; sys.modules['jax'] = None; import jaxcrop.mapping.scene"
    subprocess.run([sys.executable, "-c", code], check=True)


# Real scenes.


def test_uttar_pradesh(shared_data, tmp_path):
    scene = shared_data / "up_india" / "scene_rows09-11_768x512.tif"
    out = tmp_path / "map.tif"
    summary = map_scene(ndvi_logits, TWO, scene, out, offset=1000)
    with rasterio.open(scene) as source, rasterio.open(out) as written:
        red, near = (np.maximum(source.read(band).astype(int) - 1000, 0) for band in (3, 4))
        assert (written.crs, written.transform) == (source.crs, source.transform)
        np.testing.assert_array_equal(written.read(1), ndvi_classes(red, near))
    assert sum(summary.hectares) == pytest.approx(768 * 512 / 100, rel=2e-3)
    assert min(summary.pixels[1:4]) > 1000


@pytest.mark.parametrize(
    ("chip", "offset"), [("38D_378R_2_3", 0), ("282D_485L_3_3", 1000), ("433D_629L_3_1", 1000)]
)
def test_terramesh_chips_of_13_nameless_bands(shared_data, tmp_path, chip, offset):
    scene = shared_data / "terramesh" / "S2L1C" / f"{chip}.tif"
    out = tmp_path / "map.tif"
    bands = ("B04", "B08", *SENTINEL2_BANDS)
    everything = BandInput.scaled(bands)
    with pytest.raises(InputError, match="does not name its bands"):
        map_scene(refuse_to_work, everything, scene, out)
    map_scene(ndvi_logits, everything, scene, out, bands=SENTINEL2_BANDS, offset=offset)
    with rasterio.open(scene) as source:
        red, near = (np.maximum(source.read(band).astype(int) - offset, 0) for band in (4, 8))
    np.testing.assert_array_equal(read(out), ndvi_classes(red, near))


def test_bigger_than_a_window_with_bands_of_three_resolutions(shared_data, tmp_path):
    folder = shared_data / "scenes" / "majortom_T48QUE_20200223"
    scene, out = tmp_path / "stack.tif", tmp_path / "map.tif"
    names = [name for name in SENTINEL2_BANDS if name != "B10"]  # L2A has no cirrus band
    with ExitStack() as stack:
        fine = stack.enter_context(rasterio.open(folder / "B04.tif"))
        sink = stack.enter_context(
            rasterio.open(scene, "w", **{**fine.profile, "count": 12, "driver": "GTiff"})
        )
        grid = {name: getattr(fine, name) for name in ("crs", "transform", "height", "width")}
        for index, name in enumerate(names, start=1):
            source = stack.enter_context(rasterio.open(folder / f"{name}.tif"))
            with WarpedVRT(source, resampling=Resampling.bilinear, **grid) as band:
                sink.write(band.read(1), index)
            sink.set_band_description(index, name)

    everything = BandInput.scaled(SENTINEL2_BANDS)
    with pytest.raises(InputError, match=r"stack.tif lacks band B10 \(it has B01, B02"):
        map_scene(refuse_to_work, everything, scene, out)

    def logits_fn(dn):
        assert dn.shape[-1] == len(SATLAS)
        return ndvi_logits(dn[..., [0, 6]])

    map_scene(logits_fn, BandInput.scaled(SATLAS, 8160.0, clip=True), scene, out)
    with rasterio.open(folder / "B04.tif") as red, rasterio.open(folder / "B08.tif") as near:
        expected = ndvi_classes(red.read(1), near.read(1))
        assert rasterio.open(out).crs == red.crs
    np.testing.assert_array_equal(read(out), expected)
    assert len(np.unique(expected)) == 3
