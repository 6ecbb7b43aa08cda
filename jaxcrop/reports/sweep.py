"""The folder of a sweep, read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from jaxtyping import UInt8

from jaxcrop.errors import InputError
from jaxcrop.sweeps.cells import CellResult, read_results

_SHOWN_LINES = 40


class Failure(NamedTuple):
    """A cell that failed: which, what the error said last, and the first lines of the record."""

    cell: str
    error: str
    text: str


class Examples(NamedTuple):
    """The first test chips of a region: their ids, images and labels."""

    chip_ids: tuple[str, ...]
    rgb: UInt8[np.ndarray, "n h w 3"]
    label: UInt8[np.ndarray, "n h w"]


@dataclass(frozen=True)
class Sweep:
    """What a sweep has computed so far."""

    folder: Path
    study_text: str
    study: dict[str, Any]
    results: tuple[CellResult, ...]
    failures: tuple[Failure, ...]
    examples: dict[str, Examples]

    @property
    def title(self) -> str:
        """The study's name, else that of the folder."""
        name = self.study.get("title") or self.study.get("name") or self.folder.resolve().name
        return str(name)

    @property
    def synthetic_share(self) -> float:
        """The share of the results that are of synthetic chips."""
        return sum(result.synthetic for result in self.results) / len(self.results)

    @property
    def random_share(self) -> float:
        """The share of the results whose backbones began from random weights."""
        return sum(map(from_random_weights, self.results)) / len(self.results)


def from_random_weights(result: CellResult) -> bool:
    """Whether the backbone began from random weights, as its settings or its record say."""
    said = (
        result.cell.settings.get("weights"),
        *(result.about.get(name) for name in ("weights", "backbone")),
    )
    return any("random" in (of, of.get("source") if isinstance(of, dict) else None) for of in said)


def read_sweep(folder: Path) -> Sweep:
    """Read the folder that `python -m jaxcrop.sweep` filled; it may still be filling it.

    Raises InputError where it holds no result, or a damaged one.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the one that a sweep was written to")
    results = tuple(read_results(folder / "results"))
    if not results:
        raise InputError(
            f"{folder} holds no result: give the folder of a sweep, and wait for its first cell"
        )
    text, study = _read_study(folder / "study.yaml")
    return Sweep(
        folder=folder,
        study_text=text,
        study=study,
        results=results,
        failures=tuple(_read_failures(folder / "failures")),
        examples=_read_examples(folder / "examples"),
    )


def _read_study(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "", {}
    try:
        study = yaml.safe_load(text)
    except yaml.YAMLError:
        study = None  # the text is shown all the same
    return text, study if isinstance(study, dict) else {}


def _read_failures(folder: Path) -> list[Failure]:
    failures = []
    for path in sorted(folder.glob("*.txt")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
        spoken = [line for line in lines[1:] if line.strip()]
        failures.append(
            Failure(
                cell=lines[0].removeprefix("cell: ") or path.stem,
                error=spoken[-1].strip() if spoken else "",
                text="\n".join(lines[:_SHOWN_LINES]),
            )
        )
    return failures


def _read_examples(folder: Path) -> dict[str, Examples]:
    examples = {}
    for path in sorted(folder.glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                ids = tuple(arrays["chip_ids"].tolist())
                examples[path.stem] = Examples(ids, arrays["rgb"], arrays["label"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path} holds no example chips: remove it, and the report does without"
            ) from error
    return examples
