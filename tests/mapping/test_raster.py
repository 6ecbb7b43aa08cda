import shutil

import numpy as np
import pytest
import rasterio

from jaxcrop.data.bands import BandInput
from jaxcrop.errors import InputError
from jaxcrop.mapping.raster import Layer, band_name, open_scene, write_cogs

TWO = BandInput.scaled(("B04", "B08"))


def pixels(count=2, height=40, width=50, dtype=np.uint16):
    return np.random.default_rng(0).integers(1, 10_000, (count, height, width)).astype(dtype)


def read_all(path, band_input=TWO, **options):
    with open_scene(path, band_input, **options) as scene:
        return scene.read(0, 0, scene.source.height, scene.source.width)


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("B04", "B04"), ("B4", "B04"), ("b04", "B04"), ("b8a", "B8A"), ("B08A", "B8A"),
        (" B11 ", "B11"), ("B12_20m", "B12"), ("B4, central wavelength 665 nm", "B04"),
        ("NDVI", "NDVI"), ("B044", "B044"), ("Band 4", "Band 4"), ("", ""),
    ],
)  # fmt: skip
def test_band_names_are_understood_in_their_usual_spellings(description, name):
    assert band_name(description) == name


def test_bands_are_selected_by_name(write_scene):
    image = pixels(4)
    path = write_scene(image, ("B2", "b8", "SCL", "B4, central wavelength 665 nm"))
    dn, valid = read_all(path)
    np.testing.assert_array_equal(dn, np.moveaxis(image[[3, 1]], 0, -1))
    assert dn.dtype == np.uint16
    assert valid.all()


def test_bands_can_be_given(write_scene):
    image = pixels(3)
    path = write_scene(image, ("B04", "B08", "B02"))
    dn, _ = read_all(path, bands=["B08", "B02", "B4"])
    np.testing.assert_array_equal(dn, np.moveaxis(image[[2, 0]], 0, -1))


def test_a_window_and_a_thinned_read(write_scene):
    image = pixels()
    with open_scene(write_scene(image), TWO) as scene:
        dn, valid = scene.read(5, 10, 20, 30)
        np.testing.assert_array_equal(dn, np.moveaxis(image[:, 5:25, 10:40], 0, -1))
        assert valid.shape == (20, 30)
        thin, _ = scene.read(0, 0, 40, 50, (20, 25))
        assert thin.shape == (20, 25, 2)
        assert np.isin(thin, image).all()


def test_offset_is_subtracted_and_stops_at_zero(write_scene):
    image = pixels()
    image[0, 0, :3] = 999, 1000, 1001
    dn, valid = read_all(write_scene(image), offset=1000)
    assert dn[0, :3, 0].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(dn[..., 1], np.maximum(image[1].astype(int) - 1000, 0))
    assert valid.all()


def test_negative_numbers_become_zero(write_scene):
    image = pixels(dtype=np.int16)
    image[0, 3, 4] = -7
    dn, valid = read_all(write_scene(image))
    assert dn[3, 4, 0] == 0
    assert dn[3, 4, 1] == image[1, 3, 4]
    assert valid.all()


@pytest.mark.parametrize("nodata", [None, 0, 65535])
def test_pixels_without_data(write_scene, nodata):
    image = pixels()
    image[:, 1, 1] = 0
    image[:, 2, 2] = 65535
    image[:, 3, 3] = 0, 5  # one band of two: still a pixel
    _, valid = read_all(write_scene(image, nodata=nodata), offset=1000)
    assert not valid[1, 1]
    assert valid[2, 2] == (nodata != 65535)
    assert valid.sum() == valid.size - (2 if nodata == 65535 else 1)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int32])
def test_other_pixel_types_are_refused(write_scene, dtype):
    path = write_scene(pixels(dtype=dtype))
    with pytest.raises(InputError, match=f"scene.tif holds {np.dtype(dtype)} but digital numbers"):
        read_all(path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    "profile",
    [
        {"crs": None},
        {"transform": None},
        {"crs": None, "transform": None},
        {"crs": 'LOCAL_CS["field",UNIT["metre",1]]'},
    ],
)
def test_a_scene_that_is_nowhere_is_refused(write_scene, profile):
    path = write_scene(pixels(), **profile)
    with pytest.raises(InputError, match=r"no coordinate reference system or no .*rio edit-info"):
        read_all(path)


def test_missing_band_is_named(write_scene):
    path = write_scene(pixels(), ("B04", "B03"))
    with pytest.raises(InputError, match=r"scene.tif lacks band B08 \(it has B04, B03\)"):
        read_all(path)


def test_nameless_bands_need_a_list(write_scene):
    for bands in (None, ("red", "infrared")):
        path = write_scene(pixels(), bands)
        with pytest.raises(InputError, match=r"does not name its bands: list them .*--bands"):
            read_all(path)


def test_as_many_names_as_bands(write_scene):
    path = write_scene(pixels(), None)
    with pytest.raises(InputError, match="has 2 bands but 3 names are given"):
        read_all(path, bands=["B04", "B08", "B02"])


def test_a_band_that_occurs_twice_is_refused(write_scene):
    path = write_scene(pixels(4), ("B04", "B08", "B4", "B8"))
    with pytest.raises(InputError, match="has band B04, B08 more than once"):
        read_all(path)


@pytest.mark.parametrize("offset", [-1000, 70_000])
def test_offset_is_a_number_of_dn(write_scene, offset):
    path = write_scene(pixels())
    with pytest.raises(InputError, match=f"offset {offset} is not a number of DN"):
        read_all(path, offset=offset)


def test_a_path_that_is_no_file(tmp_path):
    for path in (tmp_path / "absent.tif", tmp_path):
        with pytest.raises(InputError, match=f"{path.name} is not a file"):
            read_all(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"II*\0", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image(tmp_path, content):
    path = tmp_path / "scene.tif"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"scene.tif cannot be opened as a raster"):
        read_all(path)


@pytest.mark.parametrize("compress", ["NONE", "DEFLATE"])
def test_a_truncated_file(write_scene, compress):
    path = write_scene(pixels(height=400), compress=compress)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(InputError, match=r"scene.tif cannot be read in rows 0 to 399: .*truncated"):
        read_all(path)


# Writing.


def listing(folder):
    return sorted(path.name for path in folder.rglob("*"))


def write(path, like, values, **layer):
    layer = Layer(path, "a layer", **{"overview": "mode", **layer})
    with rasterio.open(like) as source, write_cogs([layer], source) as (sink,):
        sink.write(values, 1)


def test_written_file_is_a_cog_on_the_same_grid(write_scene, tmp_path):
    like = write_scene(pixels(height=700, width=1100))
    values = np.random.default_rng(0).integers(0, 3, (700, 1100)).astype(np.uint8)
    colours = {0: (0, 0, 0), 1: (255, 211, 0), 2: (37, 111, 0)}
    out = tmp_path / "map.tif"
    write(out, like, values, colours=colours, tags={"class_1": "maize"})
    with rasterio.open(out) as written, rasterio.open(like) as scene:
        assert written.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (written.crs, written.transform) == (scene.crs, scene.transform)
        assert (written.dtypes, written.nodata) == (("uint8",), 0)
        assert written.descriptions == ("a layer",)
        assert written.overviews(1) == [2, 4]
        assert written.tags()["class_1"] == "maize"
        assert {key: written.colormap(1)[key][:3] for key in colours} == colours
        np.testing.assert_array_equal(written.read(1), values)
    assert listing(tmp_path) == ["map.tif", "scene.tif"]


def test_a_failure_leaves_what_was_there(write_scene, tmp_path):
    like = write_scene(pixels())
    old, new = tmp_path / "old.tif", tmp_path / "new.tif"
    old.write_bytes(b"precious")
    layers = [Layer(old, "", "mode"), Layer(new, "", "mode")]

    def write_half(failure):
        with rasterio.open(like) as source, write_cogs(layers, source) as (sink, _):
            sink.write(np.ones((20, 50), np.uint8), 1, window=((0, 20), (0, 50)))
            raise failure

    for failure in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(failure):
            write_half(failure)
        assert listing(tmp_path) == ["old.tif", "scene.tif"]
        assert old.read_bytes() == b"precious"


def test_the_folder_must_exist(write_scene, tmp_path):
    with pytest.raises(InputError, match=r"absent/map.tif cannot be written \(No such file"):
        write(tmp_path / "absent" / "map.tif", write_scene(pixels()), None)


def test_the_folder_must_be_writable(write_scene, tmp_path):
    (tmp_path / "file").write_text("")  # as a folder it can be written to by nobody, even root
    with pytest.raises(InputError, match=r"map.tif cannot be written \(Not a directory"):
        write(tmp_path / "file" / "map.tif", write_scene(pixels()), None)


def test_the_disk_must_have_room(write_scene, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2 * 1000 * 1000 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    like = write_scene(pixels(1, 1000, 1000), None)
    with pytest.raises(InputError, match=r"map.tif cannot be written: .* 2.0 MB free"):
        write(tmp_path / "map.tif", like, None)
    assert listing(tmp_path) == ["scene.tif"]


def test_the_output_is_not_a_folder(write_scene, tmp_path):
    (tmp_path / "maps.tif").mkdir()
    with pytest.raises(InputError, match=r"maps.tif is a folder"):
        write(tmp_path / "maps.tif", write_scene(pixels()), None)


def test_the_output_is_named_as_a_tiff(write_scene, tmp_path):
    with pytest.raises(InputError, match=r"map.png would be a GeoTIFF"):
        write(tmp_path / "map.png", write_scene(pixels()), None)
