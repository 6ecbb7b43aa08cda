import numpy as np
import pytest

from jaxcrop.data.bands import BandInput
from jaxcrop.data.reading import (
    InMonths,
    LeastCloudy,
    Records,
    Spares,
    evaluation_batches,
    find_records,
    stacked,
    training_batches,
)
from jaxcrop.data.sampling import Sampling
from jaxcrop.errors import InputError

ONE_BAND = BandInput.scaled(("B08",), 1.0)


@pytest.fixture(scope="module")
def chips(synthetic_records):
    return synthetic_records.chips("train", ONE_BAND)


def _marks(batches, count):
    """What identifies the chips of the next batches: the sums of their pixels."""
    return [next(batches).image.sum((1, 2, 3), np.uint64).tolist() for _ in range(count)]


@pytest.mark.parametrize("how", ["shuffled", "replacement"])
def test_batches_are_those_that_the_sampling_names(chips, how):
    sampling = Sampling(len(chips), 3, seed=4, how=how)
    marks = [chip.image.sum(dtype=np.uint64) for chip in chips]
    wanted = [[marks[place] for place in sampling.batch(step)] for step in range(4, 8)]
    assert _marks(training_batches(chips, sampling, range(4, 8)), 4) == wanted


def test_processes_together_read_what_one_alone_reads(chips):
    sampling = Sampling(len(chips), 4, seed=0)
    whole = _marks(training_batches(chips, sampling, range(5)), 5)
    halves = [
        _marks(training_batches(chips, sampling, range(5), rows=lambda _, r=rows: r), 5)
        for rows in (slice(0, 2), slice(2, 4))
    ]
    assert [first + second for first, second in zip(*halves, strict=True)] == whole


def test_batches_are_read_into_the_arrays_of_those_that_are_done_with(chips):
    """The same batches, also those of a pass's smaller end, in arrays as few as are read ahead."""
    steps = range(60)  # many more than are read ahead
    sampling = Sampling(len(chips), 3, seed=4, how="replacement")
    assert len(chips) % 3
    alone = _marks(training_batches(chips, sampling, steps), len(steps))
    spares, marks, arrays = Spares(), [], {}
    for batch in training_batches(chips, sampling, steps, spares=spares):
        marks += _marks(iter([batch]), 1)
        arrays[id(batch.image)] = batch.image
        batch.image.fill(7)
        spares.give(batch.image)
    assert marks == alone
    assert len(arrays) < len(steps)


def test_what_a_spare_array_held_is_gone(chips):
    spares = Spares()
    spares.give(np.full((5, *chips[0].image.shape), 7, np.uint16))
    _, batch = stacked(chips, [0, 1], 5, spares=spares)
    assert not batch.image[2:].any()


def test_records_are_opened_once_for_all_positions(synthetic_records, monkeypatch):
    opened = []

    def told(records, split):
        opened.append(split)
        return raw(records, split)

    raw = Records.raw
    monkeypatch.setattr(Records, "raw", told)
    positions = [("test", 0), ("train", 1), ("train", 0), ("train", 2)]
    chips = synthetic_records.chips_at(positions, ONE_BAND)
    assert sorted(opened) == ["test", "train"]
    found = [chip.chip_id for chip in chips]
    assert found == [raw(synthetic_records, s)[at]["chip_id"].decode() for s, at in positions]


def test_evaluation_fills_the_last_batch_with_ignored_chips(chips):
    batches = list(evaluation_batches(chips, 3))
    ids = [chip_id for group, _ in batches for chip_id in group]
    assert sorted(ids) == sorted(chip.chip_id for chip in (chips[i] for i in range(len(chips))))
    assert {batch.image.shape[0] for _, batch in batches} == {3}
    group, last = batches[-1]
    assert not last.label[len(group) :].any()


def test_the_newest_version_is_found(synthetic_region, tmp_path):
    built = synthetic_region / "sact" / "standard" / "2.0.0"
    for version in ("2.0.0", "2.2.0", "2.10.0"):
        folder = tmp_path / "sact" / "standard" / version
        folder.mkdir(parents=True)
        for path in built.iterdir():
            if path.name != "dataset_info.json":
                (folder / path.name).symlink_to(path)
        info = (built / "dataset_info.json").read_text().replace("2.0.0", version)
        (folder / "dataset_info.json").write_text(info)
    assert find_records(tmp_path, "sact").version == "2.10.0"
    assert find_records(tmp_path, "sact", "paper") is None
    assert find_records(tmp_path, "cdl") is None


def test_what_is_missing_is_named(synthetic_records):
    with pytest.raises(InputError, match=r"no chips in split holdout"):
        synthetic_records.chips("holdout", ONE_BAND)
    with pytest.raises(InputError, match=r"has no chips train\[300:\]"):
        synthetic_records.chips("train[300:]", ONE_BAND)
    with pytest.raises(InputError, match=r"lacks band B99"):
        synthetic_records.chips("train", BandInput.scaled(("B99",), 1.0))


def test_classes_and_pixels_are_those_of_the_labels(synthetic_records):
    for split in ("train", "validation", "test"):
        labels = np.stack([record["label"] for record in synthetic_records.raw(split)])
        counts = np.bincount(labels.ravel(), minlength=6)
        assert synthetic_records.metadata["pixels"][split] == counts.tolist()
        assert synthetic_records.classes(split) == tuple(np.flatnonzero(counts[1:]) + 1)


def test_a_split_can_be_cut_and_smaller_cuts_lie_in_larger(synthetic_records):
    whole = [chip.chip_id for chip in synthetic_records.chips("train", ONE_BAND)]
    for count in (1, 3):
        cut = synthetic_records.chips(f"train[:{count}]", ONE_BAND)
        assert [chip.chip_id for chip in cut] == whole[:count]


def test_chips_are_found_at_their_positions(synthetic_records):
    positions = [("test", 0), ("train", 3), ("train", 0)]
    found = [chip.chip_id for chip in synthetic_records.chips_at(positions, ONE_BAND)]
    expected = [synthetic_records.chips(split, ONE_BAND)[at].chip_id for split, at in positions]
    assert found == expected


def test_worker_processes_read_the_same_batches(chips):
    sampling = Sampling(len(chips), 2, seed=3)
    alone = _marks(training_batches(chips, sampling, range(4)), 4)
    assert _marks(training_batches(chips, sampling, range(4), workers=2), 4) == alone


def series(cloudy, days, nodata=None):
    return {
        "chip_id": b"a",
        "cloudy": np.float32(cloudy),
        "nodata": np.float32(nodata if nodata else [0] * len(days)),
        "dates": [day.encode() for day in days],
    }


DAYS = ("2020-04-03", "2020-04-28", "2020-06-01", "2020-07-15")


@pytest.mark.parametrize(
    ("count", "chosen"), [(1, [2]), (2, [0, 2]), (4, [0, 1, 2, 3]), (6, [0, 1, 2, 2, 2, 3])]
)
def test_the_least_cloudy_dates_are_chosen_in_order_and_the_best_fills_up(count, chosen):
    assert LeastCloudy(count)(series([0.2, 0.5, 0.1, np.nan], DAYS, [0, 0, 0, 0.9])) == chosen


def test_each_month_gives_its_least_cloudy_date():
    record = series([0.2, 0.1, 0.0, 0.0], DAYS)
    assert InMonths((7, 4))(record) == [3, 1]
    with pytest.raises(InputError, match=r"chip a has no date in month 5: choose among 4, 6, 7"):
        InMonths((4, 5))(record)
