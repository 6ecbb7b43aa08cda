"""Which chips train, validate and test: splits, the paper's lists, label budgets, regions mixed."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from jaxcrop.crops import IGNORE, OTHER
from jaxcrop.data.chip_lists import find_lists, read_list
from jaxcrop.data.index import ChipIndex, degrees_between, first_few
from jaxcrop.errors import InputError
from jaxcrop.statistics.blocks import BLOCK_KM, EARTH_KM, block_ids

Partition = Mapping[str, tuple[str, ...]]
"""Chip ids by split: train, validation, test."""

_NEAR = 1.25
"""Chips are adjacent whose centres are less than this many chips apart along both axes."""


class Adjacency(NamedTuple):
    """How near test chips lie to training chips; `distance_km` is between the nearest centres."""

    chips: int
    distance_km: float


def divided(index: ChipIndex, by: str) -> Partition:
    """The chips as they were `built`, drawn at `random` or in `blocked` groups, or as lists say.

    The lists are those in the folder `by`. What is drawn is always drawn alike; `random_split` and
    `blocked_split` draw others. Raises InputError as those do.
    """
    if by == "built":
        return built(index)
    if by == "random":
        return random_split(index, seed=0)
    if by == "blocked":
        return blocked_split(index, BLOCK_KM, seed=0)
    return listed(index, Path(by))


def built(index: ChipIndex) -> Partition:
    """The splits as the records store them."""
    names = dict.fromkeys(("train", "validation", "test", *map(str, index.split)))
    splits = {name: _ids(index.chip_id[index.split == name]) for name in names}
    return {name: ids for name, ids in splits.items() if ids}


def random_split(
    index: ChipIndex, seed: int, test: float = 0.1, validation: float = 0.1
) -> Partition:
    """Every chip by itself, in the order of a hash of `seed` and its id.

    Raises InputError where a split would be empty.
    """
    return _divided(index, np.arange(len(index)), seed, test, validation)


def blocked_split(
    index: ChipIndex, block_km: float, seed: int, test: float = 0.1, validation: float = 0.1
) -> Partition:
    """Whole blocks of the ground, of about `block_km` x `block_km`, so that splits lie apart.

    A chip belongs to the block of its centre. Blocks of which adjacent chips are part stay
    together, so no chip has a neighbour in another split. The shares are met as closely as whole
    groups allow. Raises InputError where a split would be empty.
    """
    block = block_ids(index.lon, index.lat, block_km)
    neighbours = _neighbours(index)
    ends = block[neighbours.T] if neighbours.size else np.zeros((2, 0), int)
    links = coo_array((np.ones(len(neighbours)), tuple(ends)), shape=(block.max() + 1,) * 2)
    _, group = connected_components(links, directed=False)
    return _divided(index, group[block], seed, test, validation)


def listed(
    index: ChipIndex,
    folder: Path,
    *,
    train: Literal["10", "100", "900"] = "900",
    seed: int = 0,
    missing: Literal["error", "ignore"] = "error",
) -> Partition:
    """The splits that lists in `folder` name, one chip a line: ours, or the paper's.

    Ours are {train,validation,test}.csv; of the paper's, `train` says which of
    sentinel2_<set>_subsampled_{10,100,100_train,900,test}.csv trains, and the set with most of
    the records' chips is taken. Where no list validates, 10 % of the training list do, by a hash
    of `seed` and the id. Raises InputError for missing lists and, unless `missing` is "ignore",
    for ids that the records lack.
    """
    known = set(index.chip_id.tolist())
    paths = find_lists(known, folder, train)
    partition = {}
    for name, path in paths.items():
        ids = read_list(path)
        lacking = [chip_id for chip_id in ids if chip_id not in known]
        if lacking and missing == "error":
            raise InputError(
                f"{path} lists chips that the records lack, {first_few(lacking)}: build them too, "
                "or ignore what is missing"
            )
        partition[name] = tuple(chip_id for chip_id in ids if chip_id in known)
        if not partition[name]:
            raise InputError(f"{path} lists no chip of the records: give the lists of this dataset")
    if "validation" not in partition:
        partition["train"], partition["validation"] = _held_out(partition["train"], seed)
    partition = {name: partition[name] for name in ("train", "validation", "test")}
    check(index, partition)
    return partition


def check(index: ChipIndex, partition: Partition) -> None:
    """Raise InputError for a chip in two splits, or one that the records lack."""
    seen: dict[str, str] = {}
    for name, ids in partition.items():
        index.rows(ids)
        for chip_id in ids:
            if chip_id in seen:
                raise InputError(
                    f"chip {chip_id} is in {seen[chip_id]} and again in {name}: remove it from one"
                )
            seen[chip_id] = name


def adjacency(index: ChipIndex, partition: Partition) -> Adjacency:
    """How many test chips lie beside a training chip, and the least distance between the two."""
    test, train = (index.rows(partition.get(name, ())) for name in ("test", "train"))
    if not (test.size and train.size):
        return Adjacency(0, float("nan"))
    pairs = _neighbours(index)
    both_ways = np.concatenate([pairs, pairs[:, ::-1]])
    beside = both_ways[np.isin(both_ways[:, 1], train), 0]
    chord, _ = KDTree(_on_sphere(index)[train]).query(_on_sphere(index)[test])
    return Adjacency(
        int(np.isin(test, beside).sum()), float(2 * EARTH_KM * np.arcsin(min(chord.min() / 2, 1)))
    )


def budget(
    index: ChipIndex, chip_ids: Sequence[str], n: int, seed: int, stratified: bool = True
) -> tuple[str, ...]:
    """The first `n` of `chip_ids` in an order that the seed fixes: 10 are among 100 of 900.

    Stratified, every beginning of the order holds its share of each stratum, give or take a chip.
    A chip's stratum is the rarest class, over these chips, of those that cover at least 5 % of its
    labelled pixels. Raises InputError for more chips than there are.
    """
    if not 0 < n <= len(chip_ids):
        raise InputError(
            f"a budget of {n} labelled chips cannot be had of {len(chip_ids)}: ask for 1 to "
            f"{len(chip_ids)}"
        )
    ranked = _ranked(chip_ids, seed)
    if stratified:
        strata: dict[int, list[str]] = {}
        for chip_id, stratum in zip(ranked, _strata(index, ranked), strict=True):
            strata.setdefault(int(stratum), []).append(chip_id)
        # Each stratum is spread evenly over the order, from a start of its own.
        place = {
            chip_id: ((rank + _fraction(seed, f"stratum {stratum}")) / len(ids), chip_id)
            for stratum, ids in strata.items()
            for rank, chip_id in enumerate(ids)
        }
        ranked = sorted(ranked, key=place.__getitem__)
    return tuple(ranked[:n])


def paper_list(index: ChipIndex, folder: Path, n: int) -> tuple[str, ...]:
    """The paper's own list of `n` labelled chips, 10, 100 or 900, among the records' chips.

    Raises InputError where the folder has no such list.
    """
    known = set(index.chip_id.tolist())
    path = find_lists(known, folder, str(n))["train"]
    if path.name == "train.csv":
        raise InputError(f"{folder} holds no list of the paper's: draw the labelled chips")
    return tuple(chip_id for chip_id in read_list(path) if chip_id in known)


def balanced(
    indices: Mapping[str, ChipIndex], chips: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Of each region the chips with the most labels, until all have about as many labelled pixels.

    The region with the fewest keeps all. Of the others those chips come first that have the fewest
    pixels without a label, then of class "other", as in the paper's balanced variant (datasets_spec
    section 1), until they would have more.
    """
    counts = {r: indices[r].counts[indices[r].rows(ids)] for r, ids in chips.items()}
    labelled = {region: np.delete(of, IGNORE, axis=1).sum(axis=1) for region, of in counts.items()}
    most = min(of_region.sum() for of_region in labelled.values())
    kept = {}
    for region, ids in chips.items():
        order = np.lexsort((np.array(ids), counts[region][:, OTHER], counts[region][:, IGNORE]))
        enough = np.searchsorted(np.cumsum(labelled[region][order]), most, side="right")
        kept[region] = tuple(sorted(ids[place] for place in order[: max(1, enough)]))
    return kept


def mixture(
    regions: Mapping[str, Partition],
    target: str,
    setting: Literal["id", "ood", "ood+id"],
    labelled: Sequence[str] | None = None,
    *,
    others: Literal["train", "all"] = "train",
    seed: int = 0,
) -> dict[str, dict[str, tuple[str, ...]]]:
    """The chips of each region in an experiment that is tested on `target`: split, region, ids.

    `labelled` is the budget of the target: 10 % of it validate and the rest trains, as in the
    paper ("id"); without one the target trains and validates as it is split. "ood" trains and
    validates on every other region alone, "ood+id" on both. `others="all"` trains on their test
    chips too, as the paper does. Raises InputError for an unknown target, a budget that the
    setting lacks or has no use for, and one with test chips.
    """
    if target not in regions:
        raise InputError(f"no region is called {target}: choose one of {', '.join(regions)}")
    if labelled is not None and (setting == "ood") == bool(labelled):
        remedy = "leave it out" if labelled else "give the labelled chips"
        raise InputError(f"setting {setting} with a budget of {len(labelled)} chips: {remedy}")
    if setting != "id" and len(regions) < 2:
        raise InputError(f"setting {setting} needs another region than {target}: give its records")
    tested = regions[target]["test"]
    leaked = sorted(set(labelled or ()) & set(tested))
    if leaked:
        raise InputError(
            f"the budget of {target} holds test chips, {first_few(leaked)}: draw it from train"
        )
    train, validation = {}, {}
    if setting != "id":
        for region in regions.keys() - {target}:
            partition = regions[region]
            extra = partition["test"] if others == "all" else ()
            train[region] = (*partition["train"], *extra)
            validation[region] = partition["validation"]
    if setting != "ood" and labelled is None:
        train[target], validation[target] = regions[target]["train"], regions[target]["validation"]
    elif setting != "ood":
        train[target], validation[target] = _held_out(labelled, seed)
    in_order = {
        name: {region: ids[region] for region in regions if ids.get(region)}
        for name, ids in (("train", train), ("validation", validation))
    }
    return {**in_order, "test": {target: tested}}


def _ids(chip_ids: Iterable) -> tuple[str, ...]:
    return tuple(map(str, chip_ids))


def _hash(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()


def _fraction(seed: int, name: str) -> float:
    return int.from_bytes(_hash(seed, name)) / 2**64


def _ranked(chip_ids: Sequence[str], seed: int) -> list[str]:
    return sorted(chip_ids, key=lambda chip_id: (_hash(seed, chip_id), chip_id))


def _held_out(ids: Sequence[str], seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What trains and what validates: 10 % by hash, at least one chip, but of one chip none."""
    count = max(1, round(len(ids) / 10)) if len(ids) > 1 else 0
    held = set(_ranked(ids, seed)[:count])
    return tuple(i for i in ids if i not in held), tuple(i for i in ids if i in held)


def _divided(
    index: ChipIndex, group: Int[np.ndarray, " n"], seed: int, test: float, validation: float
) -> Partition:
    """Whole groups of chips dealt out in hashed order, each share met as closely as they allow."""
    if not (test > 0 and validation >= 0 and test + validation < 1):
        raise InputError(
            f"shares of {test} test and {validation} validation cannot be: give fractions that "
            "leave some to train"
        )
    members: dict[int, list[str]] = {}
    for chip_id, of_chip in zip(_ids(index.chip_id), group.tolist(), strict=True):
        members.setdefault(of_chip, []).append(chip_id)  # the first id names the group
    left = sorted(members.values(), key=lambda ids: (_hash(seed, ids[0]), ids[0]))
    partition = {}
    for name, share in (("test", test), ("validation", validation)):
        wanted = max(1, round(share * len(index))) if share else 0
        chosen = _closest([len(ids) for ids in left], wanted)
        partition[name] = sorted(i for k in chosen for i in left[k])
        left = [ids for k, ids in enumerate(left) if k not in chosen]
    partition["train"] = sorted(i for ids in left for i in ids)
    empty = [name for name, ids in partition.items() if not ids and (share or name != "validation")]
    if empty:
        raise InputError(
            f"{len(index)} chips in {len(members)} groups leave none to {' and '.join(empty)}: "
            "give more chips or smaller blocks"
        )
    return {name: tuple(partition[name]) for name in ("train", "validation", "test")}


def _closest(sizes: Sequence[int], wanted: int) -> set[int]:
    """Positions of sizes, early ones rather than late, with the sum that is closest to `wanted`.

    Where any is wanted there is one at least.
    """
    if wanted and sizes and min(sizes) > 2 * wanted:
        return {sizes.index(min(sizes))}
    mask = (1 << 2 * wanted + 1) - 1  # a sum beyond twice the wanted is worse than none
    reachable = [1]  # bit s of entry k: some of the first k sizes have the sum s
    for size in sizes:
        reachable.append((reachable[-1] | reachable[-1] << size) & mask)
    sums = [s for s in range(2 * wanted + 1) if reachable[-1] >> s & 1]
    total = min(sums[wanted > 0 :], key=lambda s: abs(s - wanted), default=0)
    chosen = set()
    for k in reversed(range(len(sizes))):
        if not reachable[k] >> total & 1:
            chosen.add(k)
            total -= sizes[k]
    return chosen


def _on_sphere(index: ChipIndex) -> np.ndarray:
    """The centres of the chips as points of the unit sphere."""
    lon, lat = np.radians(index.lon), np.radians(index.lat)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def _neighbours(index: ChipIndex) -> Int[np.ndarray, "m 2"]:
    """Pairs of rows of adjacent chips: on a grid the 8 neighbours, in whatever projections."""
    reach = _NEAR * np.hypot(*index.ground.max(axis=0)) / 1000 / EARTH_KM
    first, second = KDTree(_on_sphere(index)).query_pairs(1.01 * reach, output_type="ndarray").T
    ground = (index.ground[first] + index.ground[second]) / 2000
    middle = np.radians((index.lat[first] + index.lat[second]) / 2)
    east = np.radians(degrees_between(index.lon[first], index.lon[second])) * np.cos(middle)
    north = np.radians(index.lat[second] - index.lat[first])
    apart = EARTH_KM * np.abs(np.stack([east, north], axis=1))
    beside = (apart < _NEAR * ground).all(axis=1)
    return np.stack([first, second], axis=1)[beside]


def _strata(index: ChipIndex, chip_ids: Sequence[str]) -> Int[np.ndarray, " n"]:
    counts = index.counts[index.rows(chip_ids)].copy()
    counts[:, IGNORE] = 0
    covers = counts >= 0.05 * np.maximum(counts.sum(axis=1, keepdims=True), 1)
    abundance = counts.sum(axis=0)
    return np.where(covers, abundance, abundance.sum() + 1).argmin(axis=1)
