"""Checkpoints of a run: the last ones to go on from, the best one to use (the file of Orbax)."""

import json
import logging
import os
import re
import shutil
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
from jax.sharding import Sharding, SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from jaxcrop.errors import InputError, UnfinishedWriteError
from jaxcrop.mesh import from_first_process, is_first_process, together
from jaxcrop.training.lora import merged
from jaxcrop.training.network import Values
from jaxcrop.training.step import TrainState

Which = Literal["best", "last"]

_VALUES = ("params", "statistics", "average")
_FROZEN = "frozen"
"""Both what a state calls the values that no step changes and the folder that holds them, once."""

_LOSS = "validation_loss.json"
_MANIFEST = "jaxcrop-crc32.json"
"""Checksums of a checkpoint's files, the last of them to be written."""

_PARTIAL = ".partial"
"""Ends the name of a checkpoint that is being written or taken away."""

_NO_LOOP = "Event loop is closed"
"""What Tensorstore meets where it would report to a save that has failed already."""

_LATEST = 2
"""Checkpoints that are kept beside the best: if the latest is damaged, one is left."""


def _by_path(tree) -> dict[str, jax.Array]:
    """The leaves of `tree` under their paths: names that outlive any change of container types."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _like(tree, by_path: dict[str, jax.Array]):
    """`tree` with every leaf replaced by the one that `by_path` holds under its path."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: by_path[jax.tree_util.keystr(path, simple=True, separator="/")], tree
    )


def _abstract(leaf: Any, where: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype, sharding=where)


def _progress(state: TrainState) -> dict:
    """What a state holds besides the model's values."""
    return {"step": state.step, "optimizer": state.optimizer, "plateau": state.plateau}


def _parts(state: TrainState) -> dict[str, dict[str, jax.Array]]:
    """What changes of a state, the model's values by themselves: evaluation needs no more."""
    parts = {name: getattr(state, name) for name in _VALUES}
    parts["progress"] = _by_path(_progress(state))
    return {name: part for name, part in parts.items() if part}


def _loaded_values(folder: Path, names: Sequence[str]) -> Values:
    """The values of the parts of these names that a folder holds, the average before `params`."""
    here = SingleDeviceSharding(jax.local_devices()[0])
    metadata = ocp.checkpointables_metadata(folder).metadata
    wanted = {
        name: {key: _abstract(leaf, here) for key, leaf in metadata[name].items()}
        for name in names
        if metadata.get(name)
    }
    if "average" in wanted:
        del wanted["params"]
    loaded = ocp.load_checkpointables(folder, wanted)
    return {key: value for part in loaded.values() for key, value in part.items()}


def _shapes(parts: dict) -> dict[str, dict[str, tuple[int, ...]]]:
    return {n: {key: tuple(leaf.shape) for key, leaf in part.items()} for n, part in parts.items()}


class Checkpoints:
    """The checkpoints of a run folder: the two latest, and that of the lowest validation loss.

    Each is complete or not there, a folder named by its step; what is frozen lies beside them, in
    one of its own. One may be damaged later, by a disk or a copy: what is read is compared with
    checksums first. Of several processes all write their arrays, and the first does the rest.
    """

    def __init__(self, run_dir: Path):
        self._folder = (run_dir / "checkpoints").absolute()
        self._frozen_is_whole = False

    def save(self, state: TrainState, validation_loss: float | None = None) -> None:
        """Write `state` under its step; complete or not at all.

        One without a validation loss is there to go on from, never the best. Raises
        UnfinishedWriteError where the disk is full or the folder cannot be written.
        """
        name = str(int(state.step))
        with self._writing(name):
            if state.frozen and not self._frozen_is_whole:
                self._keep_frozen(state.frozen)
            self._write(name, _parts(state), {_LOSS: json.dumps(validation_loss)})
            with together():
                if is_first_process():
                    self._keep_latest_and_best()

    def restore(self, like: TrainState) -> tuple[TrainState, list[str]]:
        """The latest checkpoint that is whole, placed as `like` is, or `like` before the first.

        Also returns what is wrong with later ones, which are taken away, and with what is frozen,
        which is written again as `like` has it. Raises InputError where there are checkpoints but
        none is whole, or where it is of another version, and as `save`.
        """
        step, faults = -1, []
        with together():
            if is_first_process():
                step, faults = self._latest_whole()
        step = from_first_process(step)
        if step < 0:
            return like, faults
        loaded = self._loaded(str(step), _parts(like))
        frozen = {}
        if like.frozen:
            with self._writing(_FROZEN):
                if fault := self._keep_frozen(like.frozen):
                    faults.append(f"{fault}: written again as the run began with it")
            frozen = self._loaded(_FROZEN, {_FROZEN: like.frozen})[_FROZEN]
        progress = _like(_progress(like), loaded["progress"])
        values = {name: loaded.get(name, {}) for name in _VALUES}
        return TrainState(frozen=frozen, **values, **progress), faults

    def load_model(self, which: Which, like: dict[str, jax.ShapeDtypeStruct]) -> Values:
        """The values of the best or last checkpoint's model, of the names and shapes of `like`.

        Raises InputError where there is no checkpoint, or where it is damaged or of another
        architecture.
        """
        steps = self._steps()
        if not steps:
            raise InputError(f"{self._folder} holds no checkpoint: train the run first")
        step = self._best(steps) if which == "best" else steps[-1]
        if fault := self._fault(step):
            raise InputError(f"{fault}: restore the file or train again")
        folder = self._folder / str(step)
        values = _loaded_values(folder, _VALUES)
        if set(like) - set(values):
            if fault := self._fault(_FROZEN):
                raise InputError(f"{fault}: restore the file or train again")
            values |= _loaded_values(self._folder / _FROZEN, (_FROZEN,))
        values = merged(values)
        differing = sorted(set(values) ^ set(like)) or [
            name for name in like if values[name].shape != like[name].shape
        ]
        if differing:
            raise InputError(
                f"{folder} holds another architecture than its run's config.yaml names "
                f"({differing[0]} differs): restore the file or train again"
            )
        return values

    def _loaded(self, name: str, like: dict[str, dict[str, jax.Array]]) -> dict[str, Values]:
        """The parts that a folder holds, each placed as it is in `like`.

        Raises InputError where they are of other names or shapes.
        """
        folder = self._folder / name
        wanted = jax.tree.map(lambda leaf: _abstract(leaf, leaf.sharding), like)
        if _shapes(ocp.checkpointables_metadata(folder).metadata) != _shapes(wanted):
            raise InputError(
                f"{folder} is of another version of jaxcrop: train again into a new folder"
            )
        return ocp.load_checkpointables(folder, wanted)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """A block that writes the folder `name`: where the disk refuses, nothing partial is left.

        Raises UnfinishedWriteError then.
        """
        try:
            yield
        except (OSError, ValueError) as error:
            reason = _reason(error)
            if reason is None:
                raise
            self._clear()
            raise UnfinishedWriteError(  # Orbax's threads wait for the rest of it
                f"{self._folder}/{name} cannot be written ({reason}): free the disk and give the "
                "same command, which goes on from the checkpoint before"
            ) from error

    def _write(self, name: str, parts: dict[str, Any], texts: dict[str, str]) -> None:
        """Write the folder `name`, complete or not at all: arrays by all processes."""
        partial = self._folder / f"{name}{_PARTIAL}"
        with _quiet(), _whole_copies():
            ocp.save_checkpointables(partial, parts, overwrite=True)
        with together():
            if is_first_process():
                for file, text in texts.items():
                    (partial / file).write_text(text)
                (partial / _MANIFEST).write_text(json.dumps(_checksums(partial)))
                partial.replace(self._folder / name)

    def _keep_frozen(self, frozen: Values) -> str | None:
        """Write what is frozen unless it is there and whole; what was wrong with it."""
        fault = None
        with together():
            if is_first_process():
                fault = self._fault(_FROZEN)
                if fault and (self._folder / _FROZEN).exists():
                    self._remove(_FROZEN)
        if from_first_process(fault is not None):
            self._write(_FROZEN, {_FROZEN: frozen}, {})
        self._frozen_is_whole = True
        return fault

    def _steps(self) -> list[int]:
        return sorted(int(path.name) for path in self._folder.glob("*") if path.name.isdigit())

    def _best(self, steps: list[int]) -> int:
        """The step of the lowest validation loss, the last of several."""
        return min(steps, key=lambda step: (self._loss(step), -step))

    def _loss(self, step: int) -> float:
        """The validation loss of a checkpoint; a damaged one's is the lowest, so it is looked at.

        It is neither taken away for a worse one nor passed over in silence.
        """
        if self._fault(step, only=_LOSS):
            return -float("inf")
        loss = json.loads((self._folder / str(step) / _LOSS).read_text())
        return float("inf") if loss is None else loss

    def _fault(self, name: int | str, only: str | None = None) -> str | None:
        """What is wrong with the files of a folder, or with one of them: they are not as they were
        written.
        """
        folder = self._folder / str(name)
        try:
            written = json.loads((folder / _MANIFEST).read_text())
            names = list(written) if only is None else [only]
            found = _checksums(folder, only or "**/*")
            changed = [name for name in names if found.get(name) != written[name]]
        except (OSError, ValueError, TypeError, KeyError):
            changed = [_MANIFEST]
        return f"{folder / changed[0]} is damaged or missing" if changed else None

    def _latest_whole(self) -> tuple[int, list[str]]:
        """The step to go on from, or -1 before the first, and what is wrong with later ones."""
        self._clear()
        faults = []
        later = []
        for step in reversed(self._steps()):
            fault = self._fault(step)
            if fault is None:
                break
            faults.append(fault)
            later.append(step)
        else:
            if faults:
                raise InputError(
                    f"{self._folder} holds no checkpoint that is whole ({'; '.join(faults)}): "
                    "restore the files, or train again into a new folder"
                )
            if (self._folder / _FROZEN).exists():  # of a run that ended before its first checkpoint
                self._remove(_FROZEN)
            return -1, []
        for damaged in later:
            self._remove(damaged)
        return step, [f"{fault}: going on from the checkpoint before" for fault in faults]

    def _keep_latest_and_best(self) -> None:
        steps = self._steps()
        for step in set(steps) - {*steps[-_LATEST:], self._best(steps)}:
            self._remove(step)

    def _remove(self, name: int | str) -> None:
        # Renamed first: one that is half taken away is no checkpoint.
        partial = self._folder / f"{name}{_PARTIAL}"
        (self._folder / str(name)).replace(partial)
        shutil.rmtree(partial)

    def _clear(self) -> None:
        """Take away what a killed or failed process left unfinished."""
        if is_first_process():
            for partial in self._folder.glob(f"*{_PARTIAL}*"):
                shutil.rmtree(partial, ignore_errors=True)


def _checksums(folder: Path, pattern: str = "**/*") -> dict[str, int]:
    """The CRC-32 of every file of a checkpoint by its name."""
    sums = {}
    for path in sorted(folder.glob(pattern)):
        if path.is_file() and path.name != _MANIFEST:
            value = 0
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    value = zlib.crc32(block, value)
            sums[str(path.relative_to(folder))] = value
    return sums


def _reason(error: Exception) -> str | None:
    """Why a disk refused, or None where an error is of another kind.

    Tensorstore, which writes Orbax's arrays, says it in the text of a ValueError.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return None if code is None else os.strerror(int(code[1]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Orbax and Tensorstore from printing the block's error, which is ours to say.

    They stay quiet after it: threads of theirs go on for a while, each to its own traceback.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda error: str(error.exc_value) == _NO_LOOP or hook(error)
    yield
    logger.setLevel(level)
    sys.unraisablehook = hook


def _whole_copies() -> ocp.Context:
    """A block in which one device writes an array that several have.

    Orbax would divide it among them, by a program to compile for each shape; our models are small.
    """
    context = ocp.Context()
    context.array.saving.use_replica_parallel = False
    return context
