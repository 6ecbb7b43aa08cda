"""Checkpoints of a run: the last one to go on from, the best one to use (the file of Orbax)."""

from pathlib import Path
from typing import Literal

import jax
from flax import nnx
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from jaxcrop.errors import InputError
from jaxcrop.training.step import TrainState

Which = Literal["best", "last"]
_policies = ocp.training.preservation_policies


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


def _abstract(leaf) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _training(state: TrainState) -> dict:
    """What a state holds besides the model."""
    return {"step": state.step, "optimizer": state.optimizer, "plateau": state.plateau}


def _parts(state: TrainState) -> dict:
    """What is saved of a state: the model by itself, since evaluation needs no more than that."""
    return {
        "model": _by_path(state.trained) | _by_path(state.rest),
        "training": _by_path(_training(state)),
    }


class Checkpoints:
    """The checkpoints of a run folder: the latest, and that of the lowest validation loss."""

    def __init__(self, run_dir: Path):
        keep = [
            _policies.LatestN(1),
            _policies.BestN(get_metric_fn=_validation_loss, reverse=True, n=1),
        ]
        self._checkpointer = ocp.training.Checkpointer(
            (run_dir / "checkpoints").absolute(),
            preservation_policy=_policies.AnyPreservationPolicy(keep),
            cleanup_tmp_directories=True,
        )

    def save(self, state: TrainState, validation_loss: float) -> None:
        """Write `state` under its step; complete or not at all."""
        self._checkpointer.save_checkpointables(
            int(state.step),
            _parts(state),
            metrics={"validation_loss": validation_loss},
            overwrite=True,
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the latest checkpoint, or None before the first."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def restore(self, like: TrainState) -> TrainState:
        """The latest checkpoint, placed on the devices as `like` is."""
        wanted = jax.tree.map(_abstract, _parts(like))
        loaded = self._checkpointer.load_checkpointables(self.latest_step, wanted)
        return TrainState(
            trained=_like(like.trained, loaded["model"]),
            rest=_like(like.rest, loaded["model"]),
            **_like(_training(like), loaded["training"]),
        )

    def load_model(self, which: Which, like: nnx.State) -> nnx.State:
        """The model's state of the best or last checkpoint, shaped as `like`.

        Raises InputError where there is no checkpoint, or where it is of another architecture.
        """
        found = self._checkpointer.checkpoints
        if not found:
            raise InputError(
                f"{self._checkpointer.directory} holds no checkpoint: train the run first"
            )
        best = min(found, key=lambda checkpoint: _validation_loss(checkpoint.metrics))
        step = best.step if which == "best" else found[-1].step
        wanted = _by_path(like)
        saved = self._checkpointer.checkpointables_metadata(step).metadata["model"]
        differing = sorted(set(saved) ^ set(wanted)) or [
            path for path in wanted if tuple(saved[path].shape) != tuple(wanted[path].shape)
        ]
        if differing:
            raise InputError(
                f"{self._checkpointer.directory}/{step} holds another architecture than its run's "
                f"config.yaml names ({differing[0]} differs): restore the file or train again"
            )
        loaded = self._checkpointer.load_checkpointables(
            step, {"model": jax.tree.map(_abstract, wanted)}
        )
        return _like(like, loaded["model"])
