"""A finished sweep that no model ran: results of a known structure, for what reads them.

Families differ by `SKILL`, labels help by a power law, rare classes are learnt late, other regions'
data makes models predict classes that a region has not, and one trap costs `TRAP_LOSS`.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from jaxcrop.crops import IGNORE, NUM_CLASSES
from jaxcrop.regions import REGIONS
from jaxcrop.sweeps.cells import Cell, CellResult, write_result

SKILL = {"ssl4eo": 0.04, "satlas": 0.0, "imagenet": -0.05}
CENTRES = {
    "africa": (18.9, -33.2), "asia": (126.5, 46.5), "europe": (3.4, 48.6),
    "north-america": (-93.6, 42.0), "south-america": (-55.0, -12.6), "india": (85.0, 25.5),
}  # fmt: skip
SHARES = {1: 0.3, 2: 0.2, 3: 0.06, 4: 0.12, 5: 0.32}
SCENARIOS = (
    *(("id", budget) for budget in (10, 100, 900)),
    ("ood", 0),
    *(("ood+id", budget) for budget in (10, 100, 900)),
)
TRAPS = {"raw-offset": 0.06, "moving-batchnorm": 0.02, "nested-budgets": 0.0}
"""What each trap costs in the share of pixels that are right."""
PIXELS = 256 * 256
SIDE = 96


def accuracy(family: str, setting: str, budget: int, region: str) -> float:
    """The share of pixels that are right, but for seeds and chips."""
    shift = 0.03 * list(CENTRES).index(region) - 0.06
    own = 0.62 - 0.9 * budget**-0.5 if budget else -1.0
    own = 0.30 + max(own, 0) if budget else 0.0
    other = 0.66 + 0.05 * np.log10(1 + budget) if setting != "id" else 0.0
    return min(max(own, other) + SKILL[family] + shift, 0.97)


def made_up_result(cell: Cell, chips: int = 24) -> CellResult:
    """What `cell` scored: the chips are the region's, the same for all of its cells."""
    of_region = np.random.default_rng(list(CENTRES).index(cell.region))
    classes = np.array(REGIONS[cell.region].classes)
    groups = of_region.uniform(-3, 3, (max(chips // 4, 1), 2))
    place = groups[np.arange(chips) % len(groups)] + of_region.normal(0, 0.03, (chips, 2))
    share = np.array([SHARES[number] for number in classes])
    counts = np.array(
        [
            of_region.multinomial(int(PIXELS * of_region.uniform(0.3, 0.9)), shares)
            for shares in of_region.dirichlet(4 * share / share.sum(), chips)
        ]
    )
    hard = of_region.normal(0, 0.05, len(groups))[np.arange(chips) % len(groups)]

    run = np.random.default_rng(int(cell.key, 16))
    budget = 2000 if cell.budget is None else cell.budget
    level = accuracy(cell.family, cell.setting, budget, cell.region)
    level += hard + run.normal(0, 0.01) - TRAPS.get(cell.trap, 0.0)
    stray = 0.08 if cell.setting != "id" else 0.03 * (budget < 900)
    per_chip = np.zeros((chips, NUM_CLASSES, NUM_CLASSES), np.int64)
    for column, truth in enumerate(classes):
        late = (0.32 - share[column]).clip(0) * 2.2 / (1 + budget / 60 + 3 * (cell.setting != "id"))
        right = (level + 0.04 - late).clip(0.01, 0.985)
        absent = [k for k in range(1, NUM_CLASSES) if k not in classes]
        wrong = np.zeros(NUM_CLASSES)
        wrong[classes] = share
        wrong[truth] = 0
        wrong = wrong / wrong.sum() * (1 - stray * bool(absent))
        wrong[absent] = stray / max(len(absent), 1)
        chances = wrong * (1 - right[:, None])
        chances[:, truth] = right
        per_chip[:, truth] = run.multinomial(counts[:, column], chances)
    confusion = per_chip.sum(axis=0)
    return CellResult(
        cell=cell,
        chip_ids=tuple(f"{cell.region}-{chip:03}" for chip in range(chips)),
        per_chip=per_chip,
        lon=CENTRES[cell.region][0] + place[:, 0],
        lat=CENTRES[cell.region][1] + place[:, 1],
        calibration=_calibration(confusion, 0.08 if cell.setting == "ood" else 0.03),
        examples=np.stack([_predicted(cell, chip, level.mean()) for chip in range(2)]),
        seconds=float(run.uniform(5, 60)),
        synthetic=True,
        about={
            "versions": {"jaxcrop": "0.1", "jax": "0.10.2", "python": "3.11.7"},
            "device": "cpu",
            "steps": 100,
            "chips_sha256": "0" * 64,
            "weights": {"family": cell.family, "source": "random"},
        },
    )


def made_up_cells(
    regions: Sequence[str] = tuple(CENTRES)[:5],
    families: Sequence[str] = tuple(SKILL),
    scenarios: Sequence[tuple[str, int]] = SCENARIOS,
    seeds: int = 4,
    traps: Sequence[str] = (),
) -> list[Cell]:
    """Every combination, and each trap at the largest budget in distribution of the first family.

    The defaults with four seeds and all traps are 420 + 60 cells.
    """

    def cell(region, family, setting, budget, seed, *, trap=""):
        place = {
            "region": region,
            "architecture": "resnet50",
            "decoder": "unet",
            "setting": setting,
            "budget": budget,
            "seed": seed,
            "learning_rate": 1e-3,
        }
        # The settings of a cell hold all that the study file says, the cell's own fields too.
        settings = {"backbone": family, "weights": "random", "variant": "standard", **place}
        if trap:
            settings["variant"] = trap
        part = "ablation" if trap else "main"
        return Cell(part=part, family=family, trap=trap, settings=settings, **place)

    return [
        cell(region, family, setting, budget, seed)
        for region in regions
        for family in families
        for setting, budget in scenarios
        for seed in range(seeds)
    ] + [
        cell(region, families[0], *scenarios[len(scenarios) // 2 - 1], seed, trap=trap)
        for region in regions
        for trap in traps
        for seed in range(seeds)
    ]


def write_made_up_sweep(folder: Path, cells: Sequence[Cell], chips: int = 24) -> Path:
    """The folder of a finished sweep with `cells`, two cells that failed, and the examples."""
    (folder / "failures").mkdir(parents=True)
    (folder / "examples").mkdir()
    (folder / "study.yaml").write_text(
        "name: label-budget\ndescription: Made-up results.\nparts:\n  main:\n    seeds: 4\n"
    )
    for cell in cells:
        write_result(made_up_result(cell, chips), folder / "results")
    for region in {cell.region for cell in cells}:
        label = np.stack([_label(region, chip) for chip in range(2)])
        np.savez_compressed(
            folder / "examples" / f"{region}.npz",
            rgb=np.stack([_image(region, chip) for chip in range(2)]),
            label=label,
            chip_ids=np.array([f"{region}-{chip:03}" for chip in range(2)]),
        )
    for cell in cells[:2]:
        (folder / "failures" / f"{cell.key}.txt").write_text(
            f"cell: {cell} <again>\nTraceback (most recent call last):\n"
            '  File "worker.py", line 1, in work\nMemoryError: out of memory\n'
        )
    return folder


@cache
def _fields(region: str, chip: int) -> np.ndarray:
    """The nearest of some points: what field each pixel of a chip lies in."""
    rng = np.random.default_rng([list(CENTRES).index(region), chip])
    points = rng.uniform(0, SIDE, (40, 2))
    grid = np.stack(np.mgrid[:SIDE, :SIDE], axis=-1)[..., None, :]
    return np.linalg.norm((grid - points) * [1, 0.6], axis=-1).argmin(axis=-1)


@cache
def _label(region: str, chip: int) -> np.ndarray:
    rng = np.random.default_rng([list(CENTRES).index(region), chip, 1])
    choices = (*REGIONS[region].classes, IGNORE)
    return rng.choice(choices, 40).astype(np.uint8)[_fields(region, chip)]


def _predicted(cell: Cell, chip: int, level: float) -> np.ndarray:
    rng = np.random.default_rng([int(cell.key, 16), chip])
    fields = _fields(cell.region, chip)
    guess = rng.choice(REGIONS[cell.region].classes, 40).astype(np.uint8)
    label = _label(cell.region, chip)
    right = (rng.random(40) < level)[fields] & (label != IGNORE)
    return np.where(right, label, guess[fields]).astype(np.uint8)


def _image(region: str, chip: int) -> np.ndarray:
    colours = np.array(
        [(120, 108, 92), (92, 122, 62), (52, 98, 48), (70, 110, 108), (176, 156, 104),
         (132, 138, 96)]
    )  # fmt: skip
    rng = np.random.default_rng([list(CENTRES).index(region), chip, 2])
    tint = rng.normal(0, 9, (40, 1))[_fields(region, chip)]
    noise = rng.normal(0, 5, (SIDE, SIDE, 3))
    return (colours[_label(region, chip)] + tint + noise).clip(0, 255).astype(np.uint8)


def _calibration(confusion: np.ndarray, gap: float) -> np.ndarray:
    """Bins whose pixels and correct ones add up to those of the matrix; too confident by `gap`."""
    middle = (np.arange(15) + 0.5) / 15
    total, right = confusion.sum(), np.trace(confusion)
    weight = np.exp(-(((middle - right / total - gap) / 0.18) ** 2)) * (middle > 1 / 6)
    pixels = np.floor(total * weight / weight.sum())
    pixels[-1] += total - pixels.sum()
    correct = pixels * (middle - gap).clip(0)
    return np.stack([pixels, pixels * middle, correct * right / correct.sum()], axis=1)
