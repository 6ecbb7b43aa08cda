"""Probes of backbones on a region: budgets, seeds, and a confusion matrix for each test chip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64, Int64, UInt8

from jaxcrop.crops import NUM_CLASSES
from jaxcrop.data import splits
from jaxcrop.data.index import index_of
from jaxcrop.data.reading import Records, find_records, open_records
from jaxcrop.errors import InputError
from jaxcrop.features.maps import ChipSet, TooLargeError
from jaxcrop.features.store import FeatureStore
from jaxcrop.probes.candidates import Candidate
from jaxcrop.probes.classifiers import LinearClassifiers, fit_logistic, moments
from jaxcrop.probes.neighbours import nearest_neighbours
from jaxcrop.probes.pixels import PixelFeatures, pixel_features
from jaxcrop.regions import REGIONS

Probe = Literal["logistic", "knn"]

TRAIN_PIXELS, TEST_PIXELS = 64, 256
"""Pixels sampled of each chip."""

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
_FOLDS = 3
_NEIGHBOURS = 20
_ROWS = 4096  # that are classified at a time
_LEAST_CHANCE = 1e-3
"""A class to which less chance was given costs no more: some folds do not know all classes."""


@dataclass(frozen=True)
class Design:
    """Which chips are labelled in each budget and seed, and which test all of them.

    `labelled` are positions among `train`, by budget and seed; `train` are the chips of any of
    them, out of a `pool` of so many. `notes` are sentences on what was left out.
    """

    train: ChipSet
    test: ChipSet
    budgets: tuple[int, ...]
    labelled: tuple[tuple[tuple[int, ...], ...], ...]
    pool: int
    notes: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[Float64[np.ndarray, " chips"], Float64[np.ndarray, " chips"]]:
        """Longitude and latitude of each test chip, in degrees."""
        rows = self.test.index.rows(self.test.ids)
        return self.test.index.lon[rows], self.test.index.lat[rows]


def find_region(folder: Path, region: str | None, variant: str) -> Records:
    """The records of one dataset in or below `folder`: of a region, by its name or its dataset's.

    Raises InputError where there are none, or of several datasets and no `region` is named.
    """
    if (folder / "dataset_info.json").is_file():
        return open_records(folder)
    built = {
        (path.parents[3], path.parents[2].name)
        for path in folder.rglob("dataset_info.json")
        if path.parents[1].name == variant
    }
    dataset = REGIONS[region].dataset if region in REGIONS else region
    chosen = sorted((below, name) for below, name in built if dataset in (None, name))
    if len(chosen) == 1:
        return find_records(*chosen[0], variant)
    if not chosen:
        what = f"no records of {dataset}" if dataset else "no records"
        there = ", ".join(sorted({name for _, name in built}))
        raise InputError(
            f"{folder} holds {what}, variant {variant}"
            + (f" (it has {there})" if there else "")
            + ": build them with `python -m jaxcrop.data build DATASET --source DIR`"
        )
    names = ", ".join(sorted({name for _, name in chosen}))
    folders = ", ".join(sorted({str(below) for below, _ in chosen}))
    remedy = f"give --region, one of {names}" if dataset is None else f"give one of {folders}"
    raise InputError(f"{folder} holds several sets of records: {remedy}")


def design(
    records: Records,
    *,
    budgets: Sequence[int],
    seeds: int,
    by: str = "blocked",
    test_chips: int = 200,
) -> Design:
    """Divide the chips (`jaxcrop.data.splits.divided`) and draw the budgets of each seed.

    Budgets are those of `python -m jaxcrop.train` with the same seed; those beyond the training
    chips are left out. Raises InputError where none is left, and where the chips cannot be divided.
    """
    if min(budgets, default=0) < 2 or seeds < 1:
        raise InputError("give at least one seed, and budgets of at least 2 labelled chips")
    index = index_of(records)
    try:
        partition = splits.divided(index, by)
    except InputError as error:
        if by != "blocked":
            raise
        raise InputError(
            f"{error}; or give --splits random, whose answer is too good where chips are neighbours"
        ) from error
    pool = partition["train"]
    possible = tuple(sorted({budget for budget in budgets if budget <= len(pool)}))
    if not possible:
        raise InputError(
            f"{len(pool)} training chips are fewer than the smallest budget, {min(budgets)}: give "
            "smaller --budgets or more chips"
        )
    beyond = sorted(set(budgets) - set(possible))
    notes = [f"there are {len(pool)} training chips, not {budget}" for budget in beyond[:1]]
    tested = partition["test"]
    if len(tested) > test_chips:
        notes.append(f"{test_chips} of {len(tested)} test chips are used")
    orders = [splits.budget(index, pool, possible[-1], seed) for seed in range(seeds)]
    train = tuple(sorted({chip_id for order in orders for chip_id in order}))
    at = {chip_id: number for number, chip_id in enumerate(train)}
    labelled = tuple(
        tuple(tuple(at[chip_id] for chip_id in order[:budget]) for order in orders)
        for budget in possible
    )
    tested = sorted(splits.budget(index, tested, min(test_chips, len(tested)), seed=0))
    return Design(
        ChipSet(records, index, train),
        ChipSet(records, index, tuple(tested)),
        possible,
        labelled,
        len(pool),
        tuple(notes),
    )


def probe(
    candidate: Candidate,
    study: Design,
    *,
    how: Probe = "logistic",
    store: FeatureStore,
    say: Callable[[str, bool], None] = lambda text, last: None,
) -> Int64[np.ndarray, "budgets seeds chips classes classes"]:
    """A confusion matrix of the probe for each budget, seed and test chip.

    Its counts are of all labelled pixels, estimated from those sampled. `say` is told how far the
    work is, and whether it is done.
    """
    backbone = candidate.load()

    def features(what: str, chips: ChipSet, pixels: int) -> PixelFeatures:
        def progress(done: int, total: int) -> None:
            say(f"{candidate.name}: features of {done}/{total} {what} chips", False)

        try:
            return pixel_features(backbone, chips, pixels=pixels, store=store, progress=progress)
        except TooLargeError:
            return pixel_features(
                backbone, chips, pixels=pixels, store=store, dtype="float32", progress=progress
            )

    train = features("training", study.train, TRAIN_PIXELS)
    test = features("test", study.test, TEST_PIXELS)
    guess = _classified(
        train, test, study.labelled, how, lambda text: say(f"{candidate.name}: {text}", False)
    )
    say(f"{candidate.name}: done", True)
    runs = guess.reshape(len(study.budgets), -1, *test.label.shape)
    return estimated_confusions(test.label, test.weight, runs)


def _classified(
    train: PixelFeatures,
    test: PixelFeatures,
    labelled: Sequence[Sequence[Sequence[int]]],
    how: Probe,
    say: Callable[[str], None],
) -> UInt8[np.ndarray, "runs pixels"]:
    """The class of every test pixel by the probe of each budget and seed, budget after budget."""
    runs = [list(chips) for of_budget in labelled for chips in of_budget]
    queries = test.features.reshape(-1, test.features.shape[-1])
    if how == "knn":
        say("nearest neighbours")
        return _by_neighbours(train, runs, queries)
    fitted = []
    for number, chips in enumerate(runs):
        say(f"{number}/{len(runs)} logistic regressions")
        fitted.append(fit_chips(*(part[chips] for part in train[:3])))
    together = LinearClassifiers(*map(jnp.concatenate, zip(*fitted, strict=True)))
    guess = np.empty((len(runs), len(queries)), np.uint8)
    for start in range(0, len(queries), _ROWS):
        rows = np.asarray(queries[start : start + _ROWS], np.float32)
        filled = np.pad(rows, ((0, _ROWS - len(rows)), (0, 0)))
        guess[:, start : start + len(rows)] = together.predict(filled)[:, : len(rows)]
    return guess


def fit_chips(
    features: Float[np.ndarray, "chips pixels d"],
    label: UInt8[np.ndarray, "chips pixels"],
    weight: Float[np.ndarray, "chips pixels"],
) -> LinearClassifiers:
    """One logistic regression of all pixels, its penalty chosen by cross-validation over chips.

    Every third chip is held out in turn; of the penalties 0.001, 0.01, 0.1 and 1 the one of the
    least cross-entropy there is taken.
    """
    chips, pixels, channels = features.shape
    x = jnp.asarray(features, jnp.float32).reshape(-1, channels)
    truth, weight = label.ravel(), weight.ravel()
    fold = np.repeat(np.arange(chips) % _FOLDS, pixels)
    # The problems: each penalty on the chips of all folds but one, and on all chips.
    shown = np.stack([fold != held for held in range(_FOLDS)] + [np.ones(len(fold), bool)])
    weights = np.tile(shown * weight, (len(_PENALTIES), 1))
    l2 = np.repeat(_PENALTIES, _FOLDS + 1)
    fitted = fit_logistic(x, truth, weights, l2, iterations=100, tolerance=1e-3)
    held_out = np.tile(~shown * weight, (len(_PENALTIES), 1))
    costs = np.asarray(fitted.cost(x, truth, held_out, _LEAST_CHANCE)).reshape(len(_PENALTIES), -1)
    best = np.nan_to_num(costs, nan=0.0).sum(axis=1).argmin()
    last = (best + 1) * (_FOLDS + 1) - 1
    return LinearClassifiers(fitted.kernel[last : last + 1], fitted.bias[last : last + 1])


def _by_neighbours(
    train: PixelFeatures, runs: Sequence[Sequence[int]], queries: Float[np.ndarray, "q d"]
) -> UInt8[np.ndarray, "runs q"]:
    x = np.asarray(train.features, np.float32).reshape(-1, train.features.shape[-1])
    known = np.zeros((len(runs), *train.weight.shape), np.float32)
    for run, chips in enumerate(runs):
        known[run, chips] = train.weight[chips]
    own = moments(x, train.weight.ravel())
    x = (x - own.mean) / own.scale
    parts = (
        nearest_neighbours(
            x,
            train.label.ravel(),
            known.reshape(len(runs), -1),
            (np.asarray(queries[start : start + _ROWS], np.float32) - own.mean) / own.scale,
            (_NEIGHBOURS,),
        )[:, 0]
        for start in range(0, len(queries), _ROWS)
    )
    return np.concatenate(list(parts), axis=1)


def estimated_confusions(
    label: UInt8[np.ndarray, "chips pixels"],
    weight: Float[np.ndarray, "chips pixels"],
    guess: UInt8[np.ndarray, "*runs chips pixels"],
) -> Int64[np.ndarray, "*runs chips classes classes"]:
    """Confusion matrices of chips, in pixels, from sampled pixels that stand for others.

    A row's sum is the number of pixels of its class, but for rounding.
    """
    runs = guess.shape[:-2]
    chips = len(label)
    cell = (np.arange(chips)[:, None] * NUM_CLASSES + label) * NUM_CLASSES + guess
    counts = np.stack(
        [
            np.bincount(of_run.ravel(), weight.ravel(), minlength=chips * NUM_CLASSES**2)
            for of_run in cell.reshape(-1, *label.shape)
        ]
    )
    return np.rint(counts).astype(np.int64).reshape(*runs, chips, NUM_CLASSES, NUM_CLASSES)
