import made_up_records as made_up
import matplotlib.image
import numpy as np
import pytest

from jaxcrop.crops import CROPS
from jaxcrop.data.bands import SENTINEL2_BANDS
from jaxcrop.data.show import chip_figure, show
from jaxcrop.errors import InputError


@pytest.fixture
def records(tmp_path):
    """A chip of two dates: a quarter wheat, a quarter without label; a corner without data."""
    code = np.full((16, 16), 36)
    code[:8, :8], code[8:, 8:] = 24, 0
    chip = made_up.record(
        "2023_7_-9", code, dates=("2023-07-10", "2023-08-04"),
        cloudy=np.float32([0.25, np.nan]), nodata=np.float32([0, 0.0625]),
    )  # fmt: skip
    chip["image"][1, :4, :4] = 0
    return made_up.records(tmp_path, {"train": [chip], "test": []}, synthetic=True)


def panels(figure):
    return [axes.get_images()[0].get_array() for axes in figure.axes]


def test_dates_stand_below_each_other(records):
    figure = chip_figure(records, "train", 0)
    true_first, true_second, false_first, false_second, classes = panels(figure)
    assert [axes.get_title() for axes in figure.axes] == [
        "true colour (B04, B03, B02)", "", "false colour (B08, B04, B03)", "", "classes",
    ]  # fmt: skip
    assert figure.axes[0].get_ylabel() == "2023-07-10\n25% cloudy, 0% no data"
    assert figure.axes[1].get_ylabel() == "2023-08-04\n6% no data"
    assert figure.get_suptitle() == "cdl, train 0: chip 2023_7_-9 (synthetic data)"
    image = records.raw("train")[0]["image"]
    for panel, day, bands in (
        (true_first, 0, ("B04", "B03", "B02")),
        (true_second, 1, ("B04", "B03", "B02")),
        (false_first, 0, ("B08", "B04", "B03")),
        (false_second, 1, ("B08", "B04", "B03")),
    ):
        valid = image[day].any(axis=-1)
        assert (panel[~valid] == 1).all()
        for channel, band in enumerate(bands):
            values = image[day, ..., SENTINEL2_BANDS.index(band)][valid]
            shown = panel[..., channel][valid]
            order = np.argsort(values)
            assert (np.diff(shown[order]) >= 0).all()  # a stretch keeps the order of the values
            assert (shown[values < np.percentile(values, 2)] == 0).all()
            assert (shown[values > np.percentile(values, 98)] == 1).all()
    assert tuple(classes[0, 0]) == CROPS[4].rgb
    assert tuple(classes[15, 15]) == (255, 255, 255)


def test_the_legend_says_shares(records):
    (legend,) = chip_figure(records, "train", 0).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "no label 25.0%", "wheat 25.0%", "other 50.0%",
    ]  # fmt: skip


def test_show_writes_a_picture(records, tmp_path):
    show(records, "train", 0, tmp_path / "chip.png")
    assert matplotlib.image.imread(tmp_path / "chip.png").shape[2] == 4
    with pytest.raises(InputError, match="names no picture format"):
        show(records, "train", 0, tmp_path / "chip.docx")


def test_what_is_not_there_is_named(records):
    for position in (1, -1):
        with pytest.raises(InputError, match=r"has 1 chips in train, none at .*: give 0 to 0"):
            chip_figure(records, "train", position)
    records.bands = tuple("XXX" if band == "B08" else band for band in SENTINEL2_BANDS)
    with pytest.raises(InputError, match="lacks band B08"):
        chip_figure(records, "train", 0)
