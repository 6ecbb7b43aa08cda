import json
import re

import pytest

from jaxcrop.errors import InputError
from jaxcrop.weights import CATALOGUE, INPUTS, published
from weights_convert.listing import as_json, listing, select

EVERYTHING = list(CATALOGUE.values())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCROP_CACHE", str(tmp_path))
    return tmp_path


def table(text):
    """The rows of a listing as dicts, by the words of its first line."""
    heading, *lines = text.split("\n\n")[0].splitlines()
    return [dict(zip(heading.split(), line.split(), strict=True)) for line in lines]


def legend(text):
    """The lines below the table, unwrapped, by the input that they explain."""
    lines = re.sub(r"\n {4}", " ", text.split("\n\n")[1]).splitlines()[1:]
    return dict(line.strip().split(": ", 1) for line in lines)


def test_every_set_has_a_row_that_fits_a_terminal():
    text = listing(EVERYTHING)
    rows = table(text)
    assert [row["name"] for row in rows] == list(CATALOGUE)
    for row, entry in zip(rows, EVERYTHING, strict=True):
        assert (row["family"], row["backbone"]) == (entry.family, entry.architecture)
        assert (int(row["size"]), int(row["img"])) == (entry.input_size, entry.images)
        assert (row["licence"], row["input"]) == (entry.licence, entry.input)
        assert row["sha"] == ("yes" if entry.sha256 else "no")
    assert set(legend(text)) == set(INPUTS)
    assert max(map(len, text.splitlines())) <= 120


def test_the_source_is_host_and_organisation():
    names = {
        "ssl4eo-resnet50-moco": "hf/torchgeo",
        "ssl4eo-vit-s16-mae": "hf/wangyi111",
        "satlas-swin-v2-b-si-ms": "hf/allenai",
        "imagenet-resnet50-v1": "pytorch.org",
    }
    rows = table(listing([published(name) for name in names]))
    assert {row["name"]: row["source"] for row in rows} == names


def test_the_legend_explains_just_the_inputs_that_occur():
    text = listing([published("satlas-resnet50-si-ms"), published("ssl4eo-resnet50-softcon")])
    explained = legend(text)
    assert list(explained) == ["satlas", "softcon"]
    assert explained["satlas"] == (
        "B04 B03 B02 / 3558, B05 B06 B07 B08 B11 B12 / 8160, clipped to [0, 1]"
    )
    assert explained["softcon"].startswith("(B01 - 1612.9) / 791, (B02 - 1397.6) / 854.3, ")
    assert not re.search(r"^ *[-/]|[-/]$", text, re.MULTILINE)


def test_the_state_is_that_of_the_cache(cache):
    entry = published("imagenet-resnet50-v2")
    assert table(listing([entry]))[0]["state"] == "absent"
    file = cache / "downloads" / entry.name / entry.file_name
    file.parent.mkdir(parents=True)
    file.with_name(file.name + ".part").touch()
    assert table(listing([entry]))[0]["state"] == "partial"
    file.touch()
    assert table(listing([entry]))[0]["state"] == "downloaded"
    (cache / "weights" / entry.name).mkdir(parents=True)
    (cache / "weights" / entry.name / "manifest.json").touch()
    assert table(listing([entry]))[0]["state"] == "converted"


def test_json_holds_what_the_table_shows_and_the_inputs():
    rows = {row["name"]: row for row in json.loads(as_json(EVERYTHING))}
    assert list(rows) == list(CATALOGUE)
    softcon = rows["ssl4eo-vit-b14-softcon"]
    assert (softcon["bands"][0], softcon["offset"][0], softcon["divisor"][0]) == (
        "B01",
        1612.9,
        791.0,
    )
    assert (softcon["in_channels"], softcon["clip"], softcon["state"]) == (13, False, "absent")
    assert softcon["url"] == CATALOGUE["ssl4eo-vit-b14-softcon"].url
    assert rows["imagenet-resnet50-v1"]["in_channels"] == 3


def test_the_filters_narrow_the_list():
    assert select(None, None) == EVERYTHING
    assert {entry.architecture for entry in select("satlas", None)} == {
        "resnet50",
        "resnet152",
        "swin-v2-t",
        "swin-v2-b",
    }
    assert {entry.family for entry in select(None, "vit-s16")} == {"ssl4eo", "ssl4eo-l", "imagenet"}
    assert [entry.name for entry in select("ssl4eo", "vit-s14")] == ["ssl4eo-vit-s14-softcon"]
    with pytest.raises(InputError, match="nothing is published of satlas and vit-s16"):
        select("satlas", "vit-s16")
