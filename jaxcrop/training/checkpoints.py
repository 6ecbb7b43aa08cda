"""Checkpoints of a run: the last ones to go on from, the best one to use (the file of Orbax)."""

import json
import shutil
import zlib
from pathlib import Path
from typing import Any, Literal

import jax
from jax.sharding import Sharding, SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from jaxcrop.errors import InputError, first_line
from jaxcrop.files import replacing
from jaxcrop.training.lora import merged
from jaxcrop.training.mesh import is_first_process
from jaxcrop.training.network import Values
from jaxcrop.training.step import TrainState

Which = Literal["best", "last"]
_policies = ocp.training.preservation_policies

_VALUES = ("params", "frozen", "statistics", "average")
_MANIFEST = "jaxcrop-crc32.json"
"""Checksums of a checkpoint's files, written when it is complete."""


def _validation_loss(metrics: dict) -> float:
    return metrics["validation_loss"]


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
    """What is saved of a state, the model's values by themselves: evaluation needs no more."""
    parts = {name: getattr(state, name) for name in _VALUES}
    parts["progress"] = _by_path(_progress(state))
    return {name: part for name, part in parts.items() if part}


class Checkpoints:
    """The checkpoints of a run folder: the two latest, and that of the lowest validation loss.

    Each is complete or not there. Of two, one may be damaged later, by a disk or a copy: what is
    read is compared with checksums first.
    """

    def __init__(self, run_dir: Path):
        keep = [
            _policies.LatestN(2),
            _policies.BestN(get_metric_fn=_validation_loss, reverse=True, n=1),
        ]
        self._checkpointer = ocp.training.Checkpointer(
            (run_dir / "checkpoints").absolute(),
            preservation_policy=_policies.AnyPreservationPolicy(keep),
            cleanup_tmp_directories=True,
        )
        self._folder = Path(self._checkpointer.directory)

    def save(self, state: TrainState, validation_loss: float = float("inf")) -> None:
        """Write `state` under its step; complete or not at all.

        One without a validation loss is there to go on from, never the best. Raises InputError
        where the disk is full or the folder cannot be written.
        """
        step = int(state.step)
        try:
            self._checkpointer.save_checkpointables(
                step, _parts(state), metrics={"validation_loss": validation_loss}, overwrite=True
            )
            if is_first_process():
                self._sign(step)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self._folder}/{step} cannot be written ({first_line(error)}): free the disk "
                "and give the same command, which goes on from the checkpoint before"
            ) from error

    def _sign(self, step: int) -> None:
        folder = self._folder / str(step)
        with replacing(folder / _MANIFEST) as temporary:
            temporary.write_text(json.dumps(_checksums(folder)))

    @property
    def latest_step(self) -> int | None:
        """Step of the latest checkpoint, or None before the first."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def restore(self, like: TrainState) -> tuple[TrainState, list[str]]:
        """The latest checkpoint that is whole, placed as `like` is, and what is wrong with later
        ones, which are taken away.

        Raises InputError where none is whole.
        """
        wanted = jax.tree.map(lambda leaf: _abstract(leaf, leaf.sharding), _parts(like))
        faults = []
        while self.latest_step is not None:
            step = self.latest_step
            try:
                self._check(step)
                loaded = self._checkpointer.load_checkpointables(step, wanted)
            except InputError as error:
                faults.append(str(error))
                self._discard(step)
                continue
            values = {name: loaded.get(name, {}) for name in _VALUES}
            progress = _like(_progress(like), loaded["progress"])
            return TrainState(**values, **progress), faults
        raise InputError(
            f"{self._folder} holds no checkpoint that is whole ({'; '.join(faults)}): train again "
            "into a new folder"
        )

    def _check(self, step: int) -> None:
        """Raise InputError where a file of the checkpoint is not as it was written."""
        folder = self._folder / str(step)
        try:
            signed = json.loads((folder / _MANIFEST).read_text())
        except FileNotFoundError:
            return  # killed between the two: Orbax's own rename says that it is complete
        except (OSError, ValueError) as error:
            raise InputError(f"{folder / _MANIFEST} cannot be read: {error}") from error
        found = _checksums(folder)
        changed = [name for name in signed if found.get(name) != signed[name]]
        if changed:
            raise InputError(f"{folder / changed[0]} is damaged or missing")

    def _discard(self, step: int) -> None:
        if is_first_process():
            shutil.rmtree(self._folder / str(step))
        self._checkpointer.reload()

    def load_model(self, which: Which, like: dict[str, jax.ShapeDtypeStruct]) -> Values:
        """The values of the best or last checkpoint's model, of the names and shapes of `like`.

        Raises InputError where there is no checkpoint, or where it is damaged or of another
        architecture.
        """
        found = self._checkpointer.checkpoints
        if not found:
            raise InputError(f"{self._folder} holds no checkpoint: train the run first")
        best = min(found, key=lambda checkpoint: _validation_loss(checkpoint.metrics))
        step = best.step if which == "best" else found[-1].step
        self._check(step)
        here = SingleDeviceSharding(jax.local_devices()[0])
        metadata = self._checkpointer.checkpointables_metadata(step).metadata
        wanted = {
            name: {key: _abstract(leaf, here) for key, leaf in metadata[name].items()}
            for name in _VALUES
            if metadata.get(name)
        }
        if "average" in wanted:
            del wanted["params"]
        loaded = self._checkpointer.load_checkpointables(step, wanted)
        values = merged({key: value for part in loaded.values() for key, value in part.items()})
        differing = sorted(set(values) ^ set(like)) or [
            name for name in like if values[name].shape != like[name].shape
        ]
        if differing:
            raise InputError(
                f"{self._folder}/{step} holds another architecture than its run's config.yaml "
                f"names ({differing[0]} differs): restore the file or train again"
            )
        return values


def _checksums(folder: Path) -> dict[str, int]:
    """The CRC-32 of every file of a checkpoint by its name."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _MANIFEST:
            value = 0
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    value = zlib.crc32(block, value)
            sums[str(path.relative_to(folder))] = value
    return sums
