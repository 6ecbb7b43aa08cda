"""A study file: which cells there are, and in what order they are worth computing."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jaxcrop.config import PARTS, DeviceConfig, LogConfig, TrainConfig
from jaxcrop.errors import InputError, first_line
from jaxcrop.presets import arguments, paper_defaults
from jaxcrop.sweeps.cells import Cell

METHODS = ("train", "heads")
"""A training run each, or decoders on the features of a frozen backbone, many together."""

_TOP = ("title", "settings", "parts")
_PART = ("method", "models", "traps")
_INDECISIVE = {
    *(field.name for kind in (DeviceConfig, LogConfig) for field in dataclasses.fields(kind)),
    *("data_dir", "preset", "demo"),
} - {"compute_dtype"}
"""Settings that leave a result as it is."""

_TUPLES = ("bands", "training_regions", "rates", "loss", "loss_weights", "trackers")


@dataclass(frozen=True)
class Study:
    """The cells of a study file, each once, in the order in which they are to be computed."""

    path: Path
    title: str
    cells: tuple[Cell, ...]

    def groups(self) -> list[tuple[Cell, ...]]:
        """The cells by pieces of work: a training run alone, heads that differ by seed and rate.

        A piece comes where its first cell does.
        """
        found: dict[Any, list[Cell]] = {}
        for cell in self.cells:
            together = cell.key
            if cell.method == "heads":
                # A seed draws its own random backbone.
                random = cell.settings.get("weights") == "random"
                together = _but_for(cell, "learning_rate", *(() if random else ("seed",)))
            found.setdefault(together, []).append(cell)
        return [tuple(sorted(cells, key=lambda cell: cell.key)) for cells in found.values()]


def read_study(path: Path) -> Study:
    """Read a study file.

    It has a `title`, `settings` of every cell, and `parts` by name. A part holds settings of
    `python -m jaxcrop.train`; one with a list stands for each of its values, and the part for every
    combination. Besides, a part may have `models`, a list of settings that go together (backbone,
    architecture, weights, ...), each perhaps with a `title`; `traps`, which names settings that are
    tried one at a time, beside none; and `method`. Raises InputError, naming file and part, for
    what cannot be read.
    """
    import yaml  # noqa: PLC0415 -- --help does without

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {first_line(error)}") from error
    if not isinstance(content, dict) or not isinstance(content.get("parts"), dict):
        raise InputError(f"{path} must hold `parts`, each a mapping of settings by its name")
    unknown = sorted(set(content) - set(_TOP))
    if unknown:
        raise InputError(f"{path} has no use for {', '.join(unknown)}: it holds {', '.join(_TOP)}")
    cells: dict[str, Cell] = {}
    for name, part in content["parts"].items():
        try:
            for cell in _cells(name, _mapping(part), _mapping(content.get("settings"))):
                cells.setdefault(cell.key, cell)
        except (InputError, TypeError) as error:
            raise InputError(f"{path}, part {name}: {error}") from error
    if not cells:
        raise InputError(f"{path} asks for no cell: give a part with a region and a backbone")
    return Study(path, str(content.get("title", path.stem)), tuple(_ordered(list(cells.values()))))


def config_of(cell: Cell, *, data_dir: Path | None, run_dir: Path | None) -> TrainConfig:
    """The training run that a cell is, or stands for."""
    settings = {name: _frozen(value) for name, value in cell.settings.items()}
    return TrainConfig.of(**settings, data_dir=data_dir, run_dir=run_dir)


def _cells(name: str, part: dict[str, Any], common: dict[str, Any]) -> Iterator[Cell]:
    method = part.pop("method", "train")
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, not {method}")
    models, traps = part.pop("models", [{}]), _mapping(part.pop("traps", {}))
    settings = {**common, **part}
    varied = {k: v for k, v in settings.items() if isinstance(v, list) and k not in _TUPLES}
    fixed = {k: v for k, v in settings.items() if k not in varied}
    for trap, changes in {"": {}, **traps}.items():
        for model in map(_mapping, models):
            title = str(model.pop("title", ""))
            for values in itertools.product(*varied.values()):
                chosen = dict(zip(varied, values, strict=True))
                given = fixed | chosen | model | _mapping(changes)
                yield _cell(name, method, trap, title, given)


def _cell(part: str, method: str, trap: str, title: str, settings: Mapping[str, Any]) -> Cell:
    typed = {name: _typed(name, _frozen(value)) for name, value in settings.items()}
    config = _config(typed)
    if method == "heads" and (config.tuning.tune, config.tuning.frozen_batchnorm) != (
        "frozen",
        "keep",
    ):
        raise InputError("method heads needs --tune frozen and --frozen-batchnorm keep")
    if method == "heads" and config.optimizer.augmentation == "fresh":
        raise InputError("method heads needs --augmentation views or none: features are kept")
    model, data, optimizer = config.model, config.data, config.optimizer
    decisive = {k: v for k, v in config.settings().items() if k not in _INDECISIVE}
    return Cell(
        part=part,
        region=data.region,
        family=model.backbone,
        architecture=model.architecture,
        decoder=model.decoder,
        setting=data.setting,
        budget=0 if data.setting == "ood" else data.budget,
        seed=optimizer.seed,
        learning_rate=optimizer.learning_rate,
        method=method,
        trap=trap,
        model=title,
        settings=decisive,
    )


def _config(settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration with these settings, over the defaults of the preset that they name."""
    missing = [name for name in ("region", "backbone") if settings.get(name) is None]
    if missing:
        raise InputError(f"{' and '.join(missing)} must be given")
    defaults = {}
    if settings.get("preset") == "paper":
        defaults = paper_defaults(settings["backbone"], settings.get("setting", "id"))
    return TrainConfig.of(**defaults | settings)


@cache
def _typed(name: str, value: Any) -> Any:
    """A setting's value as the command line would read it. Raises InputError for a wrong one."""
    import contextlib  # noqa: PLC0415
    import io  # noqa: PLC0415

    import tyro  # noqa: PLC0415

    for kind in (*PARTS.values(), TrainConfig):
        field = {f.name: f for f in dataclasses.fields(kind)}.get(name)
        if field is not None and name not in PARTS:
            break
    else:
        raise InputError(f"{name.replace('_', '-')} is no setting of python -m jaxcrop.train")
    if value is None:
        return None
    single = dataclasses.make_dataclass("Setting", [(name, field.type, dataclasses.field())])
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return getattr(tyro.cli(single, args=arguments({name: value})), name)
    except SystemExit as error:
        raise InputError(f"{name.replace('_', '-')} cannot be {value}") from error


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _mapping(value: Any) -> dict[str, Any]:
    """A mapping of settings, whose names may be written with dashes."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{value} must be a mapping of settings")
    return {str(key).replace("-", "_"): item for key, item in value.items()}


def _but_for(cell: Cell, *names: str) -> tuple:
    settings = {k: v for k, v in cell.settings.items() if k not in names}
    return tuple(sorted((k, str(v)) for k, v in settings.items())), cell.method


def _ordered(cells: Sequence[Cell]) -> list[Cell]:
    """First one seed of everything, cells without a trap ahead, small budgets first.

    So the first hour shows every region and family, and more seeds only narrow the intervals.
    """
    rates = {}
    for cell in cells:
        rates.setdefault((cell.part, cell.family), []).append(cell.learning_rate)

    def place(numbered: tuple[int, Cell]) -> tuple:
        number, cell = numbered
        budget = float("inf") if cell.budget is None else cell.budget
        chips = float("inf") if cell.setting != "id" else budget
        rate = rates[cell.part, cell.family].index(cell.learning_rate)
        return (cell.seed, bool(cell.trap), rate > 0, chips, budget, number)

    return [cell for _, cell in sorted(enumerate(cells), key=place)]
