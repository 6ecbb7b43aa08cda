"""Results put together: what differs only by its seed is one point of a curve."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from jaxcrop.config import ARCHITECTURE_TITLES, DECODER_TITLES
from jaxcrop.regions import REGIONS
from jaxcrop.sweeps.cells import Cell, CellResult

SETTING_TITLES = {"id": "ID", "ood": "OOD", "ood+id": "OOD+ID"}
"""Training chips from the region itself, from the others, from both: as the paper writes them."""

FAMILY_TITLES = {"ssl4eo": "SSL4EO-S12", "satlas": "SatlasPretrain", "imagenet": "ImageNet"}

_SAID_BY_CELL = (
    "backbone", "region", "setting", "budget", "seed", "architecture", "decoder", "learning_rate",
    "weights",
)  # fmt: skip
"""Settings of a cell that it has fields for, or whose words are made apart."""

Scenario = tuple[str, int | None]
"""Setting and budget."""


@dataclass(frozen=True)
class Model:
    """A model of the study.

    `build` has the words for its weights, architecture, decoder, learning rate and other settings,
    several where they go with the scenario. `representative` is whether it stands for its family.
    """

    name: str
    family: str
    build: dict[str, tuple[str, ...]]
    representative: bool

    @property
    def like_the_paper(self) -> bool:
        """Whether it is built as the one that the paper's known figures are of."""
        built = (self.family, self.build["architecture"], self.build["decoder"])
        return built == ("ssl4eo", ("ResNet-50",), ("U-Net",))


@dataclass(frozen=True)
class Group:
    """Results of cells that differ by their seeds alone, in the order of the seeds."""

    region: str
    model: str
    setting: str
    budget: int | None
    trap: str
    results: tuple[CellResult, ...]

    @property
    def scenario(self) -> Scenario:
        return self.setting, self.budget

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(result.cell.seed for result in self.results)

    @property
    def confusions(self) -> Int64[np.ndarray, "seeds k k"]:
        """The confusion matrix of each seed."""
        return np.stack([result.confusion for result in self.results])


def grouped(results: Sequence[CellResult]) -> tuple[list[Model], list[Group]]:
    """The models of a study, and its results by region, model, scenario and trap.

    A model is a family and whatever else the study varies at one region, scenario and seed, such as
    weights or decoder; its name says these, after its family or the title that the study file gives
    it. What only goes with the scenario, such as a number of steps, makes no other model. One model
    of each family and weights is its `representative`: the one with the most cells, then the one
    whose learning rate is nearest to AdamW's usual 1e-3. A cell with a trap belongs to the model
    most like it.
    """
    plain = [result for result in results if not result.cell.trap] or list(results)
    telling = _telling([result.cell for result in plain])
    members: dict[tuple, list[Cell]] = defaultdict(list)
    for result in plain:
        members[_identity(result.cell, telling)].append(result.cell)
    names = _names(members)
    found: dict[tuple, list[CellResult]] = defaultdict(list)
    for result in results:
        cell = result.cell
        identity = _identity(cell, telling)
        if identity not in members:  # of a trap
            identity = min(members, key=lambda other: (_differences(identity, other), other))
        found[cell.region, names[identity], cell.setting, cell.budget, cell.trap].append(result)
    groups = [Group(*key, _one_of_each_seed(of_key)) for key, of_key in found.items()]
    groups.sort(key=lambda g: (g.region, g.model, g.trap, *scenario_order(g.scenario)))
    return _models(members, names), groups


def _one_of_each_seed(results: list[CellResult]) -> tuple[CellResult, ...]:
    """The results by seed; a study file that says one cell in two ways has it computed twice."""
    of_seed = {}
    for result in sorted(results, key=lambda result: (result.cell.seed, result.cell.key)):
        of_seed.setdefault(result.cell.seed, result)
    return tuple(of_seed.values())


def scenario_order(scenario: Scenario) -> tuple[int, float]:
    """ID, OOD, OOD+ID, each by its budget; what is unknown comes last."""
    setting, budget = scenario
    known = list(SETTING_TITLES)
    place = known.index(setting) if setting in known else len(known)
    return place, math.inf if budget is None else budget


def region_name(region: str) -> str:
    """As `North America`; regions that are not of ours keep their names."""
    return region.replace("-", " ").title() if region in REGIONS else region


def scenario_title(scenario: Scenario) -> str:
    """As `OOD+ID, 100 labels`."""
    setting, budget = scenario
    title = SETTING_TITLES.get(setting, setting)
    if setting == "ood":
        return title
    return f"{title}, {'all' if budget is None else f'{budget:,}'} labels"


def _attributes(cell: Cell) -> dict[str, str]:
    """What may tell models of one family from each other, in words."""
    weights = str(cell.settings.get("weights", "published"))
    words = "weights of a run" if "/" in weights else f"{weights} weights"
    return {
        "weights": cell.model or words,
        "architecture": ARCHITECTURE_TITLES.get(cell.architecture, cell.architecture),
        "decoder": DECODER_TITLES.get(cell.decoder, cell.decoder),
        "method": cell.method,
        "learning_rate": f"rate {cell.learning_rate:g}",
        **{
            name: f"{name.replace('_', ' ')} {value}"
            for name, value in cell.settings.items()
            if name not in _SAID_BY_CELL
        },
    }


def _telling(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The attributes of which some family has several at one region, scenario and seed."""
    attributes = [_attributes(cell) for cell in cells]
    names = tuple(dict.fromkeys(name for of_cell in attributes for name in of_cell))
    seen: dict[tuple, set[str]] = defaultdict(set)
    for cell, of_cell in zip(cells, attributes, strict=True):
        place = cell.family, cell.region, cell.setting, cell.budget, cell.seed
        for name in names:
            seen[*place, name].add(_word(of_cell, name))
    several = {place[-1] for place, words in seen.items() if len(words) > 1}
    return tuple(name for name in names if name in several)


def _word(attributes: dict[str, str], name: str) -> str:
    return attributes.get(name, f"default {name.replace('_', ' ')}")


def _identity(cell: Cell, telling: tuple[str, ...]) -> tuple[str, ...]:
    attributes = _attributes(cell)
    return (cell.family, cell.model, *(_word(attributes, name) for name in telling))


def _differences(identity: tuple[str, ...], other: tuple[str, ...]) -> tuple[bool, int]:
    return identity[0] != other[0], sum(a != b for a, b in zip(identity, other, strict=True))


def _names(identities: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """A name for each model: its title or family, and in words what varies beside."""
    identities = list(identities)
    words: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for family, title, *rest in identities:
        for place, word in enumerate(rest):
            words[family, title, place].add(word)
    return {
        (family, title, *rest): " · ".join(
            [title or FAMILY_TITLES.get(family, family)]
            + [word for place, word in enumerate(rest) if len(words[family, title, place]) > 1]
        )
        for family, title, *rest in identities
    }


def _models(
    members: dict[tuple[str, ...], list[Cell]], names: dict[tuple[str, ...], str]
) -> list[Model]:
    def preference(identity: tuple[str, ...]) -> tuple:
        cells = members[identity]
        return -len(cells), abs(np.log10(cells[0].learning_rate) + 3), identity

    best: dict[tuple, tuple] = {}
    for identity in sorted(members, key=preference):
        cell = members[identity][0]
        best.setdefault((cell.family, _attributes(cell)["weights"]), identity)
    models = []
    for identity, cells in members.items():
        attributes = [_attributes(cell) for cell in cells]
        build = {
            name: tuple(sorted({of_cell[name] for of_cell in attributes if name in of_cell}))
            for name in dict.fromkeys(name for of_cell in attributes for name in of_cell)
        }
        models.append(
            Model(names[identity], identity[0], build, representative=identity in best.values())
        )
    order = list(FAMILY_TITLES)

    def place(model: Model) -> int:
        return order.index(model.family) if model.family in order else len(order)

    # Representatives come first: their colours and markers all differ.
    return sorted(models, key=lambda m: (not m.representative, place(m), m.name))
