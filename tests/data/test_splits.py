import itertools

import made_up_records as made_up
import numpy as np
import pytest

from jaxcrop.data.chip_lists import write_lists
from jaxcrop.data.index import index_of
from jaxcrop.data.splits import (
    adjacency,
    balanced,
    blocked_split,
    budget,
    built,
    check,
    listed,
    mixture,
    paper_list,
    random_split,
)
from jaxcrop.errors import InputError

SIDE = 2560


def tile(column, row, code=1, **others):
    """A chip of the paper's grid, thinned to 8 x 8 pixels."""
    codes = np.full((8, 8), code) if np.isscalar(code) else code
    at = {"west": column * SIDE, "north": -row * SIDE, "pixel": (SIDE / 8, SIDE / 8)}
    return made_up.record(f"2023_{column}_{row}", codes, **at, **others)


def index_of_tiles(folder, tiles, **splits):
    return index_of(made_up.records(folder, {"train": tiles, **splits}))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """200 tiles of the paper's grid in Iowa, many of them neighbours; a few classes are rare."""
    rng = np.random.default_rng(0)
    places = rng.permutation(list(itertools.product(range(-4060, -4034), range(-2050, -2030))))
    tiles = []
    for number, (column, row) in enumerate(places[:200].tolist()):
        code = rng.choice([0, 1, 36], (8, 8), p=(0.2, 0.5, 0.3))
        if number % 10 == 0:
            code[:2] = 24
        if number % 40 == 3:
            code[3] = 5
        tiles.append(tile(column, row, code))
    folder = tmp_path_factory.mktemp("records")
    return index_of_tiles(folder, tiles[:150], validation=tiles[150:160], test=tiles[160:])


def cell(chip_id):
    return np.array(chip_id.split("_")[1:], int)


def touch(a, b):
    """Whether the names of two tiles are those of 8-neighbours."""
    return abs(cell(a) - cell(b)).max() == 1


def sizes(partition):
    return {name: len(ids) for name, ids in partition.items()}


def assert_parts(index, partition):
    """Every chip in one split exactly."""
    assert sorted(itertools.chain(*partition.values())) == index.chip_id.tolist()


def test_built_is_what_the_records_hold(index):
    partition = built(index)
    assert sizes(partition) == {"train": 150, "validation": 10, "test": 40}
    assert {split for split, _ in index.positions(partition["test"])} == {"test"}
    assert_parts(index, partition)


def test_a_random_split_depends_on_seed_and_ids_alone(index, tmp_path):
    partition = random_split(index, 3)
    assert sizes(partition) == {"train": 160, "validation": 20, "test": 20}
    assert_parts(index, partition)
    assert random_split(index, 4)["test"] != partition["test"]
    other_order = index_of_tiles(tmp_path, [tile(*cell(name)) for name in index.chip_id[::-1]])
    assert random_split(other_order, 3) == partition
    with pytest.raises(InputError, match="leave some to train"):
        random_split(index, 0, test=0.6, validation=0.5)
    few = index_of_tiles(tmp_path / "few", [tile(0, 0), tile(5, 5)])
    with pytest.raises(InputError, match="2 chips in 2 groups leave none to train"):
        random_split(few, 0)


@pytest.mark.parametrize("block_km", [1, 4, 9])
def test_no_chip_of_a_blocked_split_has_a_neighbour_in_another(tmp_path, block_km):
    rng = np.random.default_rng(1)
    places = rng.permutation(list(itertools.product(range(40), range(-2060, -2020))))[:160]
    index = index_of_tiles(tmp_path, [tile(*place) for place in places.tolist()])
    partition = blocked_split(index, block_km, seed=2)
    assert_parts(index, partition)
    for a, b in itertools.combinations(partition, 2):
        pairs = itertools.product(partition[a], partition[b])
        assert not any(touch(*pair) for pair in pairs)
    found = sizes(partition)
    assert abs(found["test"] - 16) <= 2
    assert abs(found["validation"] - 16) <= 2
    assert adjacency(index, partition).chips == 0
    assert blocked_split(index, block_km, seed=2) == partition
    assert blocked_split(index, block_km, seed=3) != partition


def test_a_block_stays_whole(tmp_path):
    """Tiles that do not touch, over 2,000 km: each is where the others of its 300 km are."""
    rng = np.random.default_rng(3)
    index = index_of_tiles(
        tmp_path, [tile(3 * x, 3 * y) for x, y in rng.integers(400, size=(90, 2))]
    )
    partition = blocked_split(index, 300, seed=0, test=0.3, validation=0.2)
    of_chip = {chip_id: name for name, ids in partition.items() for chip_id in ids}
    blocks = {}
    for row, chip_id in enumerate(index.chip_id):
        line = np.floor(np.radians(index.lat[row]) * 6371 / 300)
        width = np.cos((line + 0.5) * 300 / 6371) * 6371
        column = np.floor(np.radians(index.lon[row]) * width / 300)
        blocks.setdefault((line, column), set()).add(of_chip[chip_id])
    assert 20 < len(blocks) < 70
    assert all(len(splits) == 1 for splits in blocks.values())


def test_shares_are_met_as_closely_as_groups_allow(tmp_path):
    """Rows of 7, 5, 5, 3, 2, 1 and 1 touching tiles: 6 of 24 can be had, in many ways."""
    rows = (7, 5, 5, 3, 2, 1, 1)
    tiles = [tile(column, -2000 - 9 * row) for row, n in enumerate(rows) for column in range(n)]
    index = index_of_tiles(tmp_path, tiles)
    for seed in range(5):
        found = sizes(blocked_split(index, 0.5, seed, test=0.25))
        assert found["test"] == 6
        assert 1 <= found["validation"] <= 3
    one = index_of_tiles(tmp_path / "one", [tile(column, 0) for column in range(9)])
    with pytest.raises(InputError, match="9 chips in 1 groups leave none to validation and train"):
        blocked_split(one, 20, seed=0)


def test_adjacency_is_that_of_the_names(index):
    partition = built(index)
    expected = sum(
        any(touch(test, train) for train in partition["train"]) for test in partition["test"]
    )
    found = adjacency(index, partition)
    assert 5 < expected < 40
    assert found.chips == expected
    haversine = pytest.importorskip("sklearn.metrics.pairwise").haversine_distances
    test, train = (
        np.radians(np.stack([index.lat, index.lon], axis=1)[index.rows(partition[name])])
        for name in ("test", "train")
    )
    assert found.distance_km == pytest.approx(6371 * haversine(test, train).min(), rel=1e-6)
    assert adjacency(index, {"train": partition["train"]}).chips == 0


def test_chips_of_two_projections_and_across_the_date_line_are_adjacent(tmp_path):
    """The same ground in UTM and Web Mercator; two tiles on either side of 180 degrees."""
    code = np.ones((8, 8), int)
    zone = made_up.record(
        "utm", code, crs="EPSG:32631", west=500_000, north=5_000_000, pixel=(320, 320)
    )
    mercator = tile(130, -2210)
    east, west = tile(7827, 100), tile(-7828, 100)
    index = index_of_tiles(tmp_path, [zone, east], test=[mercator, west])
    found = adjacency(index, built(index))
    assert found.chips == 1
    assert found.distance_km < 2.6
    assert index.lon[index.rows(["utm"])] == pytest.approx(3.016, abs=0.01)


def write_list(folder, name, ids, *, ends="\n", header="", suffix=""):
    text = header + "".join(f"{chip_id}{suffix}{ends}" for chip_id in ids)
    (folder / name).write_bytes(text.encode())


@pytest.mark.parametrize("release", ["2024", "later"])
def test_the_papers_lists(index, tmp_path, release):
    """Both releases: header and CRLF, or neither; another dataset's lists lie beside."""
    ids = index.chip_id.tolist()
    style = {"ends": "\r\n", "header": "Test\r\n", "suffix": ".tif"} if release == "2024" else {}
    hundred = "100_train" if release == "2024" else "100"
    for name, chips in (("900", ids[:180]), ("test", ids[180:]), (hundred, ids[:100])):
        write_list(tmp_path, f"sentinel2_cdl_2023_subsampled_{name}.csv", chips, **style)
        others = [f"2019_{i}_0" for i in range(5)]
        write_list(tmp_path, f"sentinel2_nccm_2019_subsampled_{name}.csv", others, **style)
    partition = listed(index, tmp_path)
    assert sizes(partition) == {"train": 162, "validation": 18, "test": 20}
    assert set(partition["train"]) | set(partition["validation"]) == set(ids[:180])
    assert partition["test"] == tuple(ids[180:])
    assert sizes(listed(index, tmp_path, train="100")) == {
        "train": 90,
        "validation": 10,
        "test": 20,
    }
    with pytest.raises(InputError, match=r"neither train.csv and test.csv nor .*_10.csv"):
        listed(index, tmp_path, train="10")


def test_listed_ids_that_the_records_lack(index, tmp_path):
    ids = index.chip_id.tolist()
    write_list(tmp_path, "train.csv", ["2023_1_1", *ids[:20], "2023_2_2", "2023_3_3", "2023_4_4"])
    write_list(tmp_path, "test.csv", ids[20:25])
    with pytest.raises(
        InputError, match=r"train.csv lists chips that the records lack, 2023_1_1, .* and 1 more"
    ):
        listed(index, tmp_path)
    assert sizes(listed(index, tmp_path, missing="ignore")) == {
        "train": 18,
        "validation": 2,
        "test": 5,
    }
    write_list(tmp_path, "test.csv", ["elsewhere"])
    with pytest.raises(InputError, match=r"test.csv lists no chip of the records"):
        listed(index, tmp_path, missing="ignore")
    write_list(tmp_path, "test.csv", ids[19:25])
    with pytest.raises(InputError, match=r"is in (train|validation) and again in test"):
        listed(index, tmp_path, missing="ignore")


def test_lists_of_ours_are_the_split(index, tmp_path):
    partition = random_split(index, 0)
    write_lists(partition, tmp_path)
    assert listed(index, tmp_path) == partition


def test_check(index):
    ids = tuple(index.chip_id[:3].tolist())
    check(index, {"train": ids, "test": ()})
    with pytest.raises(InputError, match="is in train and again in test"):
        check(index, {"train": ids, "test": ids[2:]})
    with pytest.raises(InputError, match="no chip nowhere"):
        check(index, {"train": (*ids, "nowhere")})


def test_budgets_are_nested_and_every_beginning_is_proportional(index):
    """Strata by the test's own count: 5 chips with soybean, 20 with wheat, the rest without."""
    ids = index.chip_id.tolist()
    present = index.counts[:, 1:] >= 0.05 * index.counts[:, 1:].sum(axis=1, keepdims=True)
    stratum = np.select([present[:, 1], present[:, 3]], [0, 1], default=2)
    # Of the common classes the rarer leads: "other" (5) nearly everywhere, else maize.
    strata = dict(zip(ids, stratum.tolist(), strict=True))
    total = np.bincount(stratum)
    assert total.tolist() == [5, 20, 175]
    for seed in range(4):
        order = budget(index, ids, 200, seed)
        assert sorted(order) == ids
        for n in (1, 10, 40, 100, 199):
            chosen = budget(index, ids, n, seed)
            assert chosen == order[:n]
            found = np.bincount([strata[chip_id] for chip_id in chosen], minlength=3)
            assert (abs(found - total * n / 200) <= 2).all()
    assert budget(index, ids[::-1], 50, 1) == budget(index, ids, 50, 1)
    assert budget(index, ids, 50, 1) != budget(index, ids, 50, 2)
    plain = budget(index, ids, 50, 1, stratified=False)
    assert plain == budget(index, ids, 51, 1, stratified=False)[:50]
    assert plain != budget(index, ids, 50, 1)
    with pytest.raises(InputError, match="a budget of 6 labelled chips cannot be had of 5"):
        budget(index, ids[:5], 6, 0)


def test_a_rare_class_is_drawn_by_some_seeds_in_its_share(index):
    """10 of 200 chips hold a quarter of a chip with soybean on average: about every fourth seed."""
    ids = index.chip_id.tolist()
    soybean = set(index.chip_id[index.counts[:, 2] > 3].tolist())
    assert len(soybean) == 5
    hits = [len(soybean.intersection(budget(index, ids, 10, seed))) for seed in range(120)]
    assert set(hits) == {0, 1}
    assert 18 <= sum(hits) <= 42


REGIONS = {
    region: {
        "train": tuple(f"{region}{i}" for i in range(8)),
        "validation": (f"{region}8",),
        "test": (f"{region}9",),
    }
    for region in ("africa", "asia", "europe")
}


def test_mixtures_leave_one_region_out():
    labelled = REGIONS["asia"]["train"][:5]
    for setting, of_others in (("id", set()), ("ood", {"africa", "europe"})):
        mixed = mixture(REGIONS, "asia", setting, labelled if setting == "id" else ())
        assert set(mixed["train"]) == set(mixed["validation"]) == (of_others or {"asia"})
        assert mixed["test"] == {"asia": ("asia9",)}
    mixed = mixture(REGIONS, "asia", "ood+id", labelled)
    assert list(mixed["train"]) == ["africa", "asia", "europe"]
    assert mixed["train"]["africa"] == REGIONS["africa"]["train"]
    assert mixed["validation"]["europe"] == ("europe8",)
    assert len(mixed["train"]["asia"]) == 4
    assert set(mixed["train"]["asia"]) | set(mixed["validation"]["asia"]) == set(labelled)
    tested = mixture(REGIONS, "asia", "ood", others="all")
    assert tested["train"]["europe"] == (*REGIONS["europe"]["train"], "europe9")
    assert not set(itertools.chain(*tested["train"].values())) & set(REGIONS["asia"]["test"])


def test_without_a_budget_the_target_is_split_as_it_is():
    mixed = mixture(REGIONS, "asia", "ood+id")
    for split in ("train", "validation"):
        assert mixed[split]["asia"] == REGIONS["asia"][split]
    alone = {"asia": REGIONS["asia"]}
    assert mixture(alone, "asia", "id")["train"] == {"asia": REGIONS["asia"]["train"]}
    with pytest.raises(InputError, match="setting ood needs another region than asia"):
        mixture(alone, "asia", "ood")


def test_one_labelled_chip_trains():
    mixed = mixture(REGIONS, "asia", "id", ("asia3",))
    assert mixed["train"] == {"asia": ("asia3",)}
    assert mixed["validation"] == {}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("mars", "ood"), "no region is called mars: choose one of africa, asia, europe"),
        (("asia", "id", ()), "setting id with a budget of 0 chips"),
        (("asia", "ood", ("asia1",)), "setting ood with a budget of 1 chips: leave it out"),
        (("asia", "id", ("asia1", "asia9")), "the budget of asia holds test chips, asia9"),
    ],
)
def test_mixtures_that_cannot_be(arguments, named):
    with pytest.raises(InputError, match=named):
        mixture(REGIONS, *arguments)


def test_balanced_regions_have_about_as_many_labelled_pixels(tmp_path):
    """The region with the fewest keeps its chips; of the others those with the most labels."""
    few = [tile(-4000, -2000 - k, np.eye(8, dtype=int)) for k in range(3)]  # 8 pixels each
    whole, half = np.full((8, 8), 1), np.repeat([[1], [0]], 4, axis=0) * np.ones((1, 8), int)
    other = np.full((8, 8), 36)
    many = [tile(-3900, -2000, other), tile(-3901, -2000, half), tile(-3902, -2000, whole)]
    indices = {
        "few": index_of_tiles(tmp_path / "few", few),
        "many": index_of_tiles(tmp_path / "many", many),
    }
    chips = {region: index.chip_id.tolist() for region, index in indices.items()}
    kept = balanced(indices, chips)
    assert set(kept["few"]) == set(chips["few"])
    assert kept["many"] == ("2023_-3902_-2000",)  # one at least, though 64 pixels are above 24
    more = {"few": chips["many"], "many": chips["many"]}
    kept = balanced({"few": indices["many"], "many": indices["many"]}, more)
    assert set(kept["many"]) == set(chips["many"])


def test_the_papers_list_of_a_budget(index, tmp_path):
    ids = index.chip_id.tolist()
    lists = {"10": [*ids[3:8], "2023_0_0"], "900": ids[:50], "test": ids[50:60]}
    for name, names in lists.items():
        path = tmp_path / f"sentinel2_cdl_2023_subsampled_{name}.csv"
        path.write_text("Test\r\n" + "\r\n".join(names))
    assert paper_list(index, tmp_path, 10) == tuple(ids[3:8])
    assert paper_list(index, tmp_path, 900) == tuple(ids[:50])
    with pytest.raises(InputError, match=r"_100\.csv"):
        paper_list(index, tmp_path, 100)
    write_lists({"train": tuple(ids[:5]), "test": tuple(ids[5:9])}, tmp_path / "ours")
    with pytest.raises(InputError, match="no list of the paper's"):
        paper_list(index, tmp_path / "ours", 10)
