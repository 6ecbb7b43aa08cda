import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcrop.reports.figures import DRAWN_METRICS, drawn
from jaxcrop.reports.figures.style import COLOURS, MARKERS, STYLE

OURS = Path(__file__).parents[2] / "experiments" / "results" / "synthetic"
"""The sweep that we ran, whose models have long names."""


def texts_of(path):
    return [
        "".join(element.itertext()) for element in ET.parse(path).iter() if "text" in element.tag
    ]


@pytest.fixture(scope="module")
def figures(report):
    return report / "figures"


def test_every_figure_is_drawn_and_says_what_its_data_is(figures):
    names = {path.stem for path in figures.iterdir()}
    regions = ("africa", "europe", "south-america")
    assert names == {
        *(f"{kind}-{metric}" for kind in ("curves", "heat") for metric in DRAWN_METRICS),
        *(f"{kind}-{region}" for kind in ("confusion", "examples") for region in regions),
        *("world", "policies", "classes", "calibration", "traps"),
        *("differences", "ranks", "efficiency"),
    }
    for name in names:
        with Image.open(figures / f"{name}.png") as image:
            assert min(image.size) > 200
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
        assert "synthetic data, random weights" in texts_of(figures / f"{name}.svg"), name
        assert "date>" not in (figures / f"{name}.svg").read_text(), name


def test_the_heat_map_has_the_values(figures, study):
    texts = texts_of(figures / "heat-present_accuracy.svg")
    for group, estimate in zip(study.groups, study.estimates, strict=True):
        if not group.trap:
            assert f"{100 * estimate.value('present_accuracy'):.1f}" in texts
    assert "Africa, SatlasPretrain" in texts


def words_of(figure, monkeypatch):
    """Each of the texts that Matplotlib draws, and where, in pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    draw, drawn_texts = Text.draw, []

    def noted(text, renderer):
        drawn_texts.append(text)
        draw(text, renderer)

    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", noted)
        FigureCanvasAgg(figure).draw()
    shown = [text for text in drawn_texts if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent()) for text in shown]


def test_long_names_neither_overlap_nor_leave_a_figure(monkeypatch):
    from matplotlib import rc_context

    from jaxcrop.reports.analysis import analysed
    from jaxcrop.reports.sweep import read_sweep

    with rc_context(STYLE):
        for name, _, figure in drawn(analysed(read_sweep(OURS))):
            words = words_of(figure, monkeypatch)
            assert len(words) > 5, name
            page = figure.bbox.padded(1)
            for text, box in words:
                assert "$" not in text, (name, text)
                assert all(page.contains(*corner) for corner in box.corners()), (name, text)
            left, bottom, right, top = np.array([box.padded(-1).extents for _, box in words]).T
            across = (left <= right[:, None]) & (right >= left[:, None])
            along = (bottom <= top[:, None]) & (top >= bottom[:, None])
            pairs = np.argwhere(np.triu(across & along, 1))
            assert not pairs.size, (name, [words[k][0] for k in pairs[0]])


def test_page_and_print_have_the_same_colours_and_markers():
    from importlib.resources import files

    page = files("jaxcrop.reports").joinpath("page")
    style = page.joinpath("style.css").read_text()
    for number, colour in enumerate(COLOURS):
        assert f"--m{number}: light-dark({colour}," in style
    assert page.joinpath("dom.js").read_text().count("(r) =>") == len(MARKERS)


def test_neighbouring_colours_keep_apart_for_colour_blind_eyes():
    """Viénot's model of protanopia and deuteranopia (1999), distances in CIE Lab."""
    kornia, torch = pytest.importorskip("kornia"), pytest.importorskip("torch")
    linear = (
        np.array([[int(of[k : k + 2], 16) / 255 for k in (1, 3, 5)] for of in COLOURS[:4]]) ** 2.2
    )
    to_lms = np.array([[17.8824, 43.5161, 4.1193], [3.4557, 27.1554, 3.8671], [0.03, 0.184, 1.467]])
    for blind in (
        [[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]],
        [[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]],
    ):
        seen = linear @ (np.linalg.inv(to_lms) @ np.array(blind) @ to_lms).T
        rgb = torch.from_numpy(np.clip(seen, 0, 1) ** (1 / 2.2)).T[..., None]
        lab = kornia.color.rgb_to_lab(rgb)[..., 0].T.numpy()
        away = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
        assert away[np.triu_indices(3, 1)].min() > 20
