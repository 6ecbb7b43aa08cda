import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_results import made_up_cells, write_made_up_sweep

from jaxcrop.reports.analysis import analysed
from jaxcrop.reports.findings import RANDOM, SYNTHETIC, warnings
from jaxcrop.reports.page import embedded
from jaxcrop.reports.payload import payload
from jaxcrop.reports.sweep import read_sweep
from jaxcrop.reports.write import write_report

HOSTILE = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(2)>&amp;\u2028"


class Elements(HTMLParser):
    """Every element with its attributes, and the text of the scripts."""

    def __init__(self, text):
        super().__init__()
        self.found, self.scripts, self.inside = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def text(report) -> str:
    return (report / "report.html").read_text()


def data_of(text):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )


def test_nothing_is_loaded_from_elsewhere(text):
    for tag, attributes in Elements(text).found:
        for name in ("src", "srcset", "href", "data", "action", "poster"):
            value = attributes.get(name) or ""
            assert not re.match(r"\s*([a-z]+:)?//", value), (tag, value)
            if tag != "a":
                assert not value or value.startswith("data:"), (tag, value)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    # What is left of http are the names of vocabularies, which no browser asks for.
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text


def test_every_file_that_is_named_exists_and_the_other_way(report, text):
    named = {
        attributes["href"]
        for tag, attributes in Elements(text).found
        if tag == "a" and not attributes["href"].startswith("#")
    }
    there = {
        f"{folder}/{path.name}"
        for folder in ("figures", "tables")
        for path in (report / folder).iterdir()
    }
    assert named == there
    stems = {Path(name).stem for name in there if name.startswith("figures/")}
    assert {f"figures/{stem}.{kind}" for stem in stems for kind in ("png", "svg")} < there
    anchors = {a["id"] for _, a in Elements(text).found if "id" in a}
    for tag, attributes in Elements(text).found:
        if tag == "a" and attributes["href"].startswith("#"):
            assert attributes["href"][1:] in anchors


def test_it_says_what_the_data_is(text, study):
    assert warnings(study.sweep) == [SYNTHETIC, RANDOM]
    for word, sentence in (SYNTHETIC, RANDOM):
        assert f"<strong>{word}</strong> {sentence}" in text
    mixed = replace(
        study.sweep,
        results=tuple(
            replace(
                result,
                cell=replace(result.cell, settings={}),
                synthetic=number < 3,
                about={},
            )
            for number, result in enumerate(study.sweep.results)
        ),
    )
    ((_, sentence),) = warnings(mixed)
    assert sentence.startswith(f"3 of {len(mixed.results)} runs are of synthetic chips; says that")


def test_the_data_has_the_scores(text, study):
    data = data_of(text)
    column = [metric["key"] for metric in data["metrics"]].index("present_jaccard")
    by_place = {
        (
            data["regions"][group["r"]]["subtitle"],
            data["models"][group["m"]]["name"],
            tuple(data["scenarios"][group["s"]][:2]),
        ): group
        for group in data["groups"]
    }
    group = by_place["sas 2021", "ImageNet", ("ood+id", 100)]
    estimate = study.at("south-america", "ImageNet", ("ood+id", 100))
    assert group["v"][column][:3] == pytest.approx(
        list(estimate.interval("present_jaccard")), abs=1e-4
    )
    assert group["n"] == 3
    assert sum(group["c"]) == 3 * data["regions"][group["r"]]["pixels"]
    assert sum(row[0] for row in group["b"]) == sum(group["c"])


def test_india_has_the_figures_of_version_1(tmp_path):
    """As a region of the study it needs no row of its own for them."""
    cells = made_up_cells(("asia", "india"), ("ssl4eo",), (("id", 10),), seeds=1)
    folder = write_made_up_sweep(tmp_path / "study", cells, chips=4)
    data = payload(analysed(read_sweep(folder)))
    assert [region["title"] for region in data["regions"]] == ["Asia", "India"]
    (figure,) = [
        of
        for of in data["paper"]
        if (of["r"], of["s"]) == (1, ["id", 10]) and data["metrics"][of["k"]]["key"] == "average_f1"
    ]
    assert (figure["v"], figure["version"]) == (0.1359, "v1")
    assert {of["r"] for of in data["paper"]} == {0, 1}


def test_hostile_names_stay_text(tmp_path):
    cells = made_up_cells(("africa",), ("satlas",), (("id", 10),), seeds=1, traps=("raw-offset",))
    cells = [replace(cell, architecture=HOSTILE, trap=cell.trap and HOSTILE) for cell in cells]
    folder = write_made_up_sweep(tmp_path / "study", cells, chips=4)
    (folder / "study.yaml").write_text(json.dumps({"title": HOSTILE, "description": HOSTILE}))
    (folder / "failures" / "x.txt").write_text(f"cell: {HOSTILE}\n{HOSTILE}\n")
    text = write_report(folder, tmp_path / "out").read_text()
    found = Elements(text)
    assert len(found.scripts) == 3
    assert "img" not in {tag for tag, _ in found.found}
    assert not any(name.startswith("on") for _, attrs in found.found for name in attrs)
    assert data_of(text)["traps"][0]["t"] == HOSTILE
    assert read_sweep(folder).title == HOSTILE
    assert (tmp_path / "out" / "tables" / "traps.tex").read_text().isprintable() is False


def test_embedded_json_is_the_same_json_and_closes_nothing():
    values = {"a": [HOSTILE, "<!--", 1.5, None]}
    text = embedded(values)
    assert json.loads(text) == values
    assert not set("<>&") & set(text)
    with pytest.raises(ValueError, match="JSON"):
        embedded({"a": float("nan")})


def test_a_sweep_that_has_just_begun_has_a_report(tmp_path):
    """One cell: no interval over seeds, no comparison, no curve, no chips, no study file."""
    cells = made_up_cells(("africa",), ("satlas",), (("ood", 0),), seeds=1)
    folder = write_made_up_sweep(tmp_path / "study", cells, chips=1)
    for name in ("failures", "examples"):
        shutil.rmtree(folder / name)
    (folder / "study.yaml").unlink()
    text = write_report(folder, tmp_path / "out").read_text()
    data = data_of(text)
    assert len(data["groups"]) == 1
    assert data["groups"][0]["v"][0][1:] == [None, None, None]
    assert data["pairs"] == data["fits"] == data["efficiency"] == data["effects"] == []
    assert 'id="statistics"' not in text
