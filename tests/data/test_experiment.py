"""Settings and budgets over records of several regions, that the ordinary builders made."""

from itertools import chain

import numpy as np
import pytest

from jaxcrop.data.bands import BandInput
from jaxcrop.data.build import build
from jaxcrop.data.chip_lists import write_lists
from jaxcrop.data.experiment import plan
from jaxcrop.data.reading import find_records, training_batches
from jaxcrop.data.sampling import Sampling
from jaxcrop.data.synthetic import write_region
from jaxcrop.errors import InputError

BANDS = BandInput.scaled(("B04", "B08"), 1.0)
DATASETS = {"africa": "sact", "asia": "nccm", "south-america": "sas"}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    for region, dataset in DATASETS.items():
        write_region(folder / region, region, chips=6, seed=1)
        build(dataset, folder / region, folder)
    return {region: find_records(folder, dataset) for region, dataset in DATASETS.items()}


def ids(experiment, split) -> dict[str, set[str]]:
    return {region: set(found) for region, found in experiment.ids[split].items()}


def test_in_distribution_is_the_region_as_it_was_built(records):
    experiment = plan({"africa": records["africa"]}, "africa")
    for split in ("train", "validation", "test"):
        stored = {chip.chip_id: chip for chip in records["africa"].chips(split, BANDS)}
        found = experiment.chips(split, BANDS)
        assert {chip.chip_id for chip in found} == stored.keys() == ids(experiment, split)["africa"]
        for chip in found:
            np.testing.assert_array_equal(chip.image, stored[chip.chip_id].image)
    assert experiment.classes == records["africa"].classes("train")
    assert experiment.sizes == {
        split: {"africa": n} for split, n in records["africa"].sizes.items()
    }


def test_out_of_distribution_sees_the_others_and_is_tested_on_the_region(records):
    experiment = plan(records, "asia", setting="ood")
    assert experiment.sizes["train"].keys() == {"africa", "south-america"}
    assert ids(experiment, "test") == {"asia": {c.chip_id for c in experiment.chips("test", BANDS)}}
    train = experiment.chips("train", BANDS)
    assert len(train) == sum(experiment.sizes["train"].values()) == 8
    batch = next(training_batches(train, Sampling(len(train), 8, seed=0), range(1)))
    assert batch.image.shape == (8, 256, 256, 2)
    labels = np.concatenate([chip.label.ravel() for chip in train])
    assert experiment.classes == tuple(np.unique(labels[labels > 0]))


def test_both_adds_the_budget_which_pays_for_validation(records):
    experiment = plan(records, "asia", setting="ood+id", budget=3)
    whole = plan(records, "asia", setting="ood+id")
    built = plan({"asia": records["asia"]}, "asia")
    assert (experiment.sizes["train"]["asia"], experiment.sizes["validation"]["asia"]) == (2, 1)
    labelled = ids(experiment, "train")["asia"] | ids(experiment, "validation")["asia"]
    assert labelled <= ids(built, "train")["asia"]
    assert ids(whole, "train")["asia"] == ids(built, "train")["asia"]
    smaller = plan({"asia": records["asia"]}, "asia", budget=2)
    assert (
        set(chain(*(ids(smaller, split)["asia"] for split in ("train", "validation")))) < labelled
    )


def test_balanced_others_are_a_part_of_all(records):
    whole = plan(records, "asia", setting="ood+id")
    even = plan(records, "asia", setting="ood+id", others="balanced")
    assert ids(even, "train")["asia"] == ids(whole, "train")["asia"]
    sums = {}
    for region in ("africa", "south-america"):
        assert ids(even, "train")[region] <= ids(whole, "train")[region]
        rows = even.indices[region].rows(even.ids["train"][region])
        sums[region] = even.indices[region].counts[rows, 1:].sum()
    # South America is labelled everywhere, Africa on part of the fields.
    assert len(ids(even, "train")["south-america"]) < len(ids(whole, "train")["south-america"])
    assert sums["south-america"] <= sums["africa"]


def test_splits_are_drawn_anew_or_taken_from_lists(records, tmp_path):
    alone = {"africa": records["africa"]}
    drawn = [plan(alone, "africa", by="random", seed=seed) for seed in (0, 1)]
    assert drawn[0].digest == drawn[1].digest != plan(alone, "africa").digest
    write_lists({split: of["africa"] for split, of in drawn[0].ids.items()}, tmp_path)
    listed = plan(alone, "africa", by=str(tmp_path))
    assert all(ids(listed, split) == ids(drawn[0], split) for split in listed.ids)


def test_the_seed_draws_the_budget_and_nothing_that_is_tested(records):
    drawn = [plan({"asia": records["asia"]}, "asia", budget=2, seed=seed) for seed in range(6)]
    assert len({experiment.digest for experiment in drawn}) > 1
    assert len({experiment.ids["test"]["asia"] for experiment in drawn}) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"budget": 1}, "a budget of 1 chips leaves none to validate on"),
        ({"budget": 900}, "a budget of 900 labelled chips cannot be had of 4"),
        ({"by": "nowhere"}, "nowhere is no folder"),
    ],
)
def test_what_cannot_be_had_is_refused(records, options, named):
    with pytest.raises(InputError, match=named):
        plan({"africa": records["africa"]}, "africa", **options)
    with pytest.raises(InputError, match="setting ood needs another region"):
        plan({"africa": records["africa"]}, "africa", setting="ood")
