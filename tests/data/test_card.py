import json
import re

import made_up_records as made_up
import matplotlib.image
import numpy as np
import pytest

from jaxcrop.data.card import connected_areas, write_card
from jaxcrop.errors import InputError

SIDE = 64


def write(folder, splits, **settings):
    """The card of made-up records: its numbers and its text."""
    path = write_card(made_up.records(folder, splits, **settings), folder / "card")
    return json.loads((folder / "card" / "card.json").read_text()), path.read_text()


def chip(number, code, **others):
    """A chip in Iowa, 42 degrees north, on its own tile of Web Mercator."""
    west, north = -10_400_000 + 5 * 640 * number, 5_160_000
    return made_up.record(f"2023_{number}", code, seed=number, west=west, north=north, **others)


def blocks(*codes):
    """A map of stripes, one of each code."""
    return np.repeat(np.array(codes), SIDE // len(codes))[:, None] * np.ones(SIDE, int)


@pytest.fixture(scope="module")
def noise():
    """Chips of patches as a label map has them: large and small, some of one pixel."""
    rng = np.random.default_rng(0)
    coarse = rng.choice([0, 1, 5, 24, 36, 176], (6, 8, 8), p=(0.1, 0.3, 0.2, 0.1, 0.2, 0.1))
    maps = coarse.repeat(8, axis=1).repeat(8, axis=2)
    specks = rng.random(maps.shape) < 0.05
    maps[specks] = rng.choice([1, 36], specks.sum())
    return [chip(number, code) for number, code in enumerate(maps)]


@pytest.fixture(scope="module")
def card(noise, tmp_path_factory):
    splits = {"train": noise[:3], "validation": noise[3:4], "test": noise[4:]}
    return write(tmp_path_factory.mktemp("records"), splits)[0]


def fields_by_scipy(chips):
    """Class, pixels and whether cut of every area of one code, by scipy's labelling."""
    label = pytest.importorskip("scipy.ndimage").label
    found = []
    for record in chips:
        for code in np.unique(record["code"]):
            areas, count = label(record["code"] == code)  # by default pixels that share a side
            rim = np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]])
            for area in range(1, count + 1):
                crop = made_up.CLASS_OF_CODE[code]
                found.append((crop, (areas == area).sum(), area in rim))
    return np.array(found)


def test_areas_are_those_of_scipy(noise):
    code = noise[0]["code"]
    first, sizes, cut = connected_areas(code)
    crops = noise[0]["label"].ravel()[first]
    expected = fields_by_scipy(noise[:1])
    assert sorted(zip(crops, sizes, cut, strict=True)) == sorted(map(tuple, expected))
    first, sizes, cut = connected_areas(np.full((1, 3), 2_000_000_000, np.uint32))
    assert (first.tolist(), sizes.tolist(), cut.tolist()) == ([0], [3], [True])


def test_field_sizes_are_hectares_on_the_ground(card, noise):
    """Web Mercator stretches a length at latitude p by 1 / cos p, on its sphere."""
    expected = fields_by_scipy(noise)
    latitude = np.degrees(2 * np.arctan(np.exp(5_160_000 / 6_378_137)) - np.pi / 2)
    hectare = (10 * np.cos(np.radians(latitude))) ** 2 / 1e4
    for crop, name in ((1, "maize"), (2, "soybean"), (4, "wheat"), (5, "other")):
        _, pixels, cut = expected[expected[:, 0] == crop].T
        specks = pixels * hectare < 0.1
        cut = (cut == 1) & ~specks
        whole = pixels[~cut & ~specks] * hectare
        found = card["fields"][name]
        assert [found[key] for key in ("whole", "cut", "specks")] == [
            len(whole), cut.sum(), specks.sum(),
        ]  # fmt: skip
        assert found["median"] == pytest.approx(np.median(whole), rel=0.01)  # ellipsoid, sphere
        assert found["p90"] == pytest.approx(np.percentile(whole, 90), rel=0.01)
        for key, part in (("cut_area", cut), ("speck_area", specks)):
            assert found[key] == pytest.approx(pixels[part].sum() / pixels.sum(), rel=1e-3)
        ordered = np.sort(whole)
        below = ordered[ordered <= found["half_area_below"] * 1.001].sum()
        assert below / whole.sum() >= 0.5 > (below - ordered[-1]) / whole.sum()
    assert "rice" not in card["fields"]


def test_shares_and_their_inequality(card, noise):
    labels = np.stack([record["label"] for record in noise])
    for crop, name in enumerate(("ignore", "maize", "soybean", "rice", "wheat", "other")):
        assert card["classes"][name]["pixels"] == {
            "train": (labels[:3] == crop).sum(),
            "validation": (labels[3] == crop).sum(),
            "test": (labels[4:] == crop).sum(),
        }
    stats = pytest.importorskip("scipy.stats")
    _, counts = np.unique(labels[labels > 0], return_counts=True)
    balance = card["balance"]
    assert balance["effective_classes"] == pytest.approx(np.exp(stats.entropy(counts)))
    assert balance["ratio"] == pytest.approx(counts.max() / counts.min())
    assert balance["labelled"] == pytest.approx((labels > 0).mean())
    codes = np.stack([record["code"] for record in noise])
    assert card["classes"]["other"]["codes"] == {
        "Alfalfa": (codes == 36).sum(),
        "Grassland/Pasture": (codes == 176).sum(),
    }


def test_band_statistics_are_those_of_numpy(card, noise):
    pixels = np.stack([record["image"] for record in noise]).reshape(-1, 13)
    for band, row in enumerate(card["bands"].values()):
        values = pixels[:, band]
        assert row["mean"] == pytest.approx(values.mean())
        assert row["std"] == pytest.approx(values.std())
        expected = np.percentile(values, (2, 50, 98), method="inverted_cdf")
        assert [row[key] for key in ("p2", "median", "p98")] == expected.tolist()


def test_the_card_names_what_it_cannot_say(tmp_path):
    """A sample with every flaw: each has its sentence, with the count that the test made."""
    days = ("2023-01-10", "2023-07-10")
    train = [chip(n, blocks(1, 36), dates=days[n % 2 :][:1]) for n in range(4)]
    test = [
        chip(n, blocks(5, 0), dates=days[1:], offset=np.int32([1000]), offset_source=[b"pixels"])
        for n in range(4, 16)
    ]
    test[0] = chip(4, blocks(36, 36, 0, 0), cloudy=np.float32([0.9]))
    test[0]["transform"][2] = train[3]["transform"][2] + 640  # the tile east of the last
    card, text = write(
        tmp_path, {"train": train, "test": test},
        synthetic=True, labels="harmonised", radiometry="raw",
    )  # fmt: skip
    assert card["chips"] == {"train": 4, "test": 12}
    for sentence in (
        "**Synthetic data:**",
        "16 chips cover",
        "No pixel is rice or wheat: the sample says nothing about them.",
        "Maize occurs in train but not in test",
        "Soybean occurs in test but not in train: it cannot be learned.",
        "Of 12 test chips few hold some classes, other in 1:",
        "Train and test differ in their classes: 92% of the labels",
        "1 of 12 test chips lies beside a training chip",
        "38% of the pixels have no label",
        "One image of each chip",
        "2 of 16 images were taken outside the growing season (1 May to 30 September), "
        "2 of them in winter",
        "6% of the pixels are cloudy",
        "11 of 16 images still carry an offset",
        "The pixels of 11 images contradict the offset",
        "The label maps hold harmonised classes",
        "Answering “soybean” everywhere is right for 91.7% of the labelled test pixels",
    ):
        assert sentence in text, sentence
    assert text.startswith("# cdl 2.0.0, standard (synthetic data)\n")


def test_a_season_across_the_new_year_and_none(tmp_path):
    """July in the south: outside October to March, and winter; without a season only winter."""
    days = ("2021-02-01", "2021-07-10", "2021-12-24")
    chips = [chip(n, blocks(5, 36), dates=days) for n in range(3)]
    for record in chips:
        record["transform"][5] = -3_000_000
    splits = {"train": chips[:1], "validation": chips[1:2], "test": chips[2:]}
    card, text = write(tmp_path, splits, season=["10-01", "03-31"])
    assert card["images"]["outside_season"] == card["images"]["in_winter"] == 3
    assert "3 of 9 images were taken outside the growing season (1 October to 31 March)" in text
    card, text = write(tmp_path, splits, season=[])
    assert "No growing season is stated for the 9 images, 3 of them in winter" in text
    assert card["images"]["by_month"] == {"2": 3, "7": 3, "12": 3}


def test_pictures_exist_and_unknown_values_do_no_harm(tmp_path):
    """Bands without B02 and B03 have no share of clouds; one chip without a whole field."""
    unknown = {"cloudy": np.float32([np.nan]), "nodata": np.float32([np.nan])}
    splits = {"train": [chip(0, blocks(1), **unknown)], "test": [chip(9, blocks(1), **unknown)]}
    card, text = write(tmp_path, splits)
    assert card["images"]["cloudy"] is None
    assert card["fields"]["maize"]["median"] is None
    assert "| cloudy | not known |" in text
    shown = re.findall(r"!\[.+\]\((.+)\)", text)
    assert shown == ["class_balance.png", "field_sizes.png", "locations.png", "bands.png"]
    for name in shown:
        picture = matplotlib.image.imread(tmp_path / "card" / name)
        assert picture.std() > 0.02
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another folder"):
        write_card(made_up.records(tmp_path, splits), tmp_path / "file")
