"""A cell of a study: one model trained on one set of chips, and what it scored."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from jaxcrop.errors import InputError

_RESULT, _ARRAYS = "result.json", "result.npz"


@dataclass(frozen=True)
class Cell:
    """Where a cell stands in its study, and the settings of `python -m jaxcrop.train` it has.

    `part` is the part of the study file that asks for it, `method` what computes it: "train" for a
    training run, "heads" for decoders on shared features of a frozen backbone. `budget` is None
    where all of the region's chips are used, and 0 where none is (setting "ood"). `trap` names the
    trap of datasets_spec section 0 that an ablation opens, or is empty. `model` is what the study
    file calls the model, or empty. `settings` are all that may change the result.
    """

    part: str
    region: str
    family: str
    architecture: str
    decoder: str
    setting: str
    budget: int | None
    seed: int
    learning_rate: float
    method: str = "train"
    trap: str = ""
    model: str = ""
    settings: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        """A hash of what decides the result: cells of one key are one piece of work."""
        decisive = {k: v for k, v in asdict(self).items() if k not in ("part", "trap", "model")}
        text = json.dumps(decisive, sort_keys=True, default=str)
        return sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        budget = "all" if self.budget is None else self.budget
        words = (
            *(self.region, self.family, self.architecture, self.decoder, self.setting),
            *(f"budget {budget}", f"seed {self.seed}", f"rate {self.learning_rate:g}", self.trap),
        )
        return " ".join(filter(None, words))


@dataclass(frozen=True)
class CellResult:
    """What a cell scored: a confusion matrix for each test chip, from which every metric follows.

    Rows of `per_chip` are the truth, columns the prediction; `lon` and `lat` are degrees of each
    chip's centre; `calibration` the bins of `jaxcrop.training.calibration`. `examples` are the
    predictions of the first test chips, whose images and labels the sweep keeps once a region.
    `about` says what it was computed with: versions, device, hashes of chips and weights, steps.
    """

    cell: Cell
    chip_ids: tuple[str, ...]
    per_chip: Int64[np.ndarray, "chips classes classes"]
    lon: Float64[np.ndarray, " chips"]
    lat: Float64[np.ndarray, " chips"]
    calibration: Float64[np.ndarray, "bins 3"]
    examples: UInt8[np.ndarray, "shown h w"]
    seconds: float
    synthetic: bool
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def confusion(self) -> Int64[np.ndarray, "classes classes"]:
        """The confusion matrix over all chips."""
        return self.per_chip.sum(axis=0)


def write_result(result: CellResult, folder: Path) -> None:
    """Write a result below `folder`, in a folder named by the cell's key: whole or not at all."""
    final = folder / result.cell.key
    draft = folder / f".{result.cell.key}.{os.getpid()}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        np.savez_compressed(
            draft / _ARRAYS,
            chip_ids=np.array(result.chip_ids, dtype=np.str_),
            per_chip=result.per_chip,
            lon=result.lon,
            lat=result.lat,
            calibration=result.calibration,
            examples=result.examples,
        )
        text = {
            "cell": asdict(result.cell),
            "seconds": result.seconds,
            "synthetic": result.synthetic,
            "about": result.about,
        }
        (draft / _RESULT).write_text(json.dumps(text, indent=1, default=str))
        if final.exists():  # a result of the same key is the same result
            shutil.rmtree(draft)
        else:
            draft.rename(final)
    except OSError as error:
        raise InputError(
            f"{final} cannot be written ({error.strerror}): free the disk and give the command "
            "again, which goes on"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read_result(folder: Path) -> CellResult:
    """Read a result from its own folder. Raises InputError where it is damaged."""
    try:
        text = json.loads((folder / _RESULT).read_text())
        known = {f.name for f in fields(Cell)}
        cell = Cell(**{name: value for name, value in text.pop("cell").items() if name in known})
        with np.load(folder / _ARRAYS, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        chip_ids = tuple(arrays.pop("chip_ids").tolist())
        return CellResult(cell, chip_ids, **arrays, **text)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} holds no complete result: remove the folder, and the sweep computes it again"
        ) from error


def read_results(folder: Path) -> Iterator[CellResult]:
    """Every result below `folder`, in the order of their keys."""
    for path in sorted(folder.glob(f"*/{_RESULT}")):
        if not path.parent.name.startswith("."):
            yield read_result(path.parent)
