import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from jaxcrop.crops import CROPS
from jaxcrop.errors import InputError
from jaxcrop.figures import confusion_figure, map_figure, save_figure


def write(path, image, bands=None):
    image = np.atleast_3d(image.T).T
    count, height, width = image.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=image.dtype,
        crs="EPSG:32633", transform=Affine(10, 0, 500_000, 0, -10, 5_000_000),
    ) as sink:  # fmt: skip
        if bands is not None:
            sink.descriptions = bands
        sink.write(image)
    return path


def write_pair(folder, height=30, width=40):
    rng = np.random.default_rng(0)
    image = rng.integers(1, 3000, (4, height, width)).astype(np.uint16)
    image[:, :5] = 0
    classes = rng.integers(1, 5, (height, width)).astype(np.uint8)  # all but "other"
    classes[:5] = 0
    scene = write(folder / "scene.tif", image, ("B02", "B03", "B04", "B08"))
    return scene, write(folder / "map.tif", classes), image, classes


def texts(axes):
    return [text.get_text() for text in axes.texts]


def example():
    confusion = np.zeros((6, 6), np.int64)
    confusion[1, [1, 2]] = 3000, 1000
    confusion[5, 5] = 4000
    return confusion


def test_confusion_says_share_and_count():
    (axes,) = confusion_figure(example()).axes
    assert texts(axes).count("75.0%") == texts(axes).count("25.0%") == 1
    assert {"3,000", "1,000", "4,000"} <= set(texts(axes))
    assert texts(axes).count("–") == 15  # three classes absent from the truth
    assert axes.get_title() == "87.5% of 8,000 pixels right"
    names = [crop.name for crop in CROPS[1:]]
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert [label.get_text() for label in axes.get_yticklabels()] == names


def test_confusion_has_a_column_for_class_0_if_it_was_predicted():
    confusion = example()
    confusion[5, 0] = 1000
    (axes,) = confusion_figure(confusion, synthetic=True).axes
    assert axes.get_title() == "77.8% of 9,000 pixels right (synthetic data)"
    assert [label.get_text() for label in axes.get_xticklabels()] == [crop.name for crop in CROPS]
    place = {text.get_text(): text.get_position()[0] for text in axes.texts}
    assert place["20.0%"] == 0
    assert place["80.0%"] == 5


def test_confusion_of_no_pixels(tmp_path):
    figure = confusion_figure(np.zeros((6, 6), np.int64))
    assert figure.axes[0].get_title() == "no pixels"
    save_figure(figure, tmp_path / "empty.png")


def test_map_figure_shows_scene_map_and_legend(tmp_path):
    scene, crop_map, image, classes = write_pair(tmp_path)
    figure = map_figure(scene, crop_map)
    left, right = figure.axes
    shown = np.asarray(right.get_images()[0].get_array())
    for number, crop in enumerate(CROPS[:5]):
        colour = (255, 255, 255) if number == 0 else crop.rgb
        assert (shown[classes == number] == colour).all()
    picture = np.asarray(left.get_images()[0].get_array())
    assert (picture[:5] == 1).all()  # no data is white
    for channel, band in enumerate((2, 1, 0)):  # red, green, blue
        rank = np.corrcoef(picture[5:, :, channel].ravel(), image[band, 5:].ravel())[0, 1]
        assert rank > 0.95
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["no data", "maize", "soybean", "rice", "wheat"]
    assert [axes.get_title() for axes in figure.axes] == ["scene", "crop map"]


def test_map_figure_with_truth(tmp_path):
    scene, crop_map, _, classes = write_pair(tmp_path)
    truth = write(tmp_path / "truth.tif", np.full_like(classes, 5))
    figure = map_figure(scene, crop_map, truth=truth, title="a synthetic place")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["scene", "crop map", "truth"]
    assert figure.get_suptitle() == "a synthetic place"
    shown = np.asarray(figure.axes[2].get_images()[0].get_array())
    assert (shown == CROPS[5].rgb).all()
    assert figure.legends[0].get_texts()[-1].get_text() == "other"


def test_large_scenes_are_thinned(tmp_path):
    scene, crop_map, *_ = write_pair(tmp_path, 2100, 50)
    for axes in map_figure(scene, crop_map).axes:
        assert axes.get_images()[0].get_array().shape[:2] == (700, 17)


def test_a_scene_without_data(tmp_path):
    scene = write(tmp_path / "scene.tif", np.zeros((3, 9, 9), np.uint16))
    crop_map = write(tmp_path / "map.tif", np.zeros((9, 9), np.uint8))
    figure = map_figure(scene, crop_map, bands=["B04", "B03", "B02"])
    assert (figure.axes[0].get_images()[0].get_array() == 1).all()


def test_a_scene_without_true_colour_is_refused(tmp_path):
    scene, crop_map, *_ = write_pair(tmp_path)
    with pytest.raises(InputError, match=r"scene.tif lacks band B03"):
        map_figure(scene, crop_map, bands=["B02", "B08", "B04", "B8A"])


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (np.zeros((9, 9), np.uint8), "map.tif has 9 x 9 pixels but the scene 30 x 40"),
        (np.full((30, 40), 77, np.uint8), "map.tif holds class 77 but ours are 0 to 5"),
    ],
)
def test_a_map_of_something_else_is_refused(tmp_path, classes, sentence):
    scene, crop_map, *_ = write_pair(tmp_path)
    with pytest.raises(InputError, match=sentence):
        map_figure(scene, write(crop_map, classes))


def test_a_map_that_is_no_image_is_refused(tmp_path):
    scene, crop_map, *_ = write_pair(tmp_path)
    crop_map.write_bytes(b"hello")
    with pytest.raises(InputError, match=r"map.tif cannot be read as a raster"):
        map_figure(scene, crop_map)


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml")]
)
def test_save_writes_what_the_suffix_says(tmp_path, name, start):
    save_figure(confusion_figure(example()), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.tiny", "a", "a.tif/"])
def test_save_refuses_other_names(tmp_path, name):
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(InputError, match=r"names no picture format|cannot be written"):
        save_figure(confusion_figure(example()), tmp_path / name)


def test_save_refuses_an_absent_folder(tmp_path):
    with pytest.raises(InputError, match=r"absent/a.png cannot be written \(No such file"):
        save_figure(confusion_figure(example()), tmp_path / "absent" / "a.png")


def test_a_failing_save_keeps_what_was_there(tmp_path, monkeypatch):
    figure, path = confusion_figure(example()), tmp_path / "a.png"
    path.write_bytes(b"precious")

    def half(draft, **_):
        draft.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "savefig", half)
    with pytest.raises(KeyboardInterrupt):
        save_figure(figure, path)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]
