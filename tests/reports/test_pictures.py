import base64
import io

import numpy as np
from PIL import Image

from jaxcrop.crops import CROPS
from jaxcrop.reports import payload
from jaxcrop.reports.analysis import analysed
from jaxcrop.reports.pictures import classes_uri, example_chips, rgb_uri
from jaxcrop.reports.sweep import read_sweep


def decoded(uri):
    kind, data = uri.split(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_classes_keep_their_colours():
    classes = np.random.default_rng(0).integers(0, 6, (256, 256), np.uint8)
    found = decoded(classes_uri(classes))
    colours = np.array([(255, 255, 255), *(crop.rgb for crop in CROPS[1:])])
    np.testing.assert_array_equal(found, colours[classes[::2, ::2]])


def test_images_are_thinned():
    grey = np.full((512, 300, 3), 90, np.uint8)
    found = decoded(rgb_uri(grey))
    assert found.shape == (256, 150, 3)
    assert abs(found.astype(int) - 90).max() <= 2


def test_the_first_seed_is_shown_and_counted(study):
    chip = next(example_chips(study))
    guess = chip.guesses[0]
    result = guess.group.results[0]
    assert (chip.region, result.cell.seed) == (guess.group.region, 0)
    np.testing.assert_array_equal(guess.classes, result.examples[0])
    labelled = chip.label > 0
    assert guess.right == np.mean(guess.classes[labelled] == chip.label[labelled])


def test_pictures_weigh_no_more_than_allowed(sweep_folder, monkeypatch):
    analysis = analysed(read_sweep(sweep_folder))
    every = payload.payload(analysis)["examples"]
    assert {region: len(chips) for region, chips in every.items()} == {0: 2, 1: 2, 2: 2}
    weight = len(str(every))
    monkeypatch.setattr(payload, "MOST_BYTES", weight * 2 // 3)
    fewer = payload.payload(analysis)["examples"]
    assert set(fewer) == {0, 1, 2}  # a second chip goes before a region's only one
    assert len(str(fewer)) < weight * 2 // 3
