"""Experiment trackers that a run reports to on request: Weights & Biases, MLflow.

Each is a context, and the run that it keeps ends as the context does: well, failed or preempted.
"""

import importlib
import json
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxcrop.errors import InputError, first_line
from jaxcrop.files import replacing
from jaxcrop.training.preemption import EXIT_CODE, Preempted

_PROJECT = "jaxcrop"


def open_trackers(
    names: Sequence[str], run_dir: Path, title: str, settings: dict[str, Any], resume: bool
) -> "list[WeightsAndBiases | MLflow]":
    """Open the trackers `names` ("wandb", "mlflow"), which go on with the same run if `resume`.

    Their run ids are kept in `run_dir`/trackers.json. Raises InputError where a library is missing
    or refuses to start.
    """
    path = run_dir / "trackers.json"
    ids = json.loads(path.read_text()) if resume and path.exists() else {}
    trackers = []
    with ExitStack() as opened:
        for name in names:
            tracker = opened.enter_context(_KINDS[name](run_dir, title, settings, ids.get(name)))
            trackers.append(tracker)
            ids[name] = tracker.run_id
        if names:
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(ids))
        opened.pop_all()
    return trackers


class WeightsAndBiases:
    """A run of Weights & Biases; `WANDB_MODE=offline` keeps it in `run_dir`/wandb.

    Steps that an interrupted run reported before it is resumed stay as they were, since W&B's
    history only goes forward.
    """

    def __init__(self, run_dir: Path, title: str, settings: dict[str, Any], run_id: str | None):
        # Crash reports would go over the network even when offline.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._wandb = _import("wandb", "wandb")
        self.run_id = run_id or secrets.token_hex(4)
        try:
            self._run = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                name=title,
                id=self.run_id,
                dir=str(run_dir),
                config=_flat(settings),
                resume="allow",
                allow_val_change=True,  # the length of a resumed run
                settings=self._wandb.Settings(console="off"),
            )
        except self._wandb.Error as error:
            raise InputError(
                f"--trackers wandb could not start ({first_line(error)}): run `wandb login`, or "
                "set WANDB_MODE=offline"
            ) from error

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        self._run.log({name: self._wandb.Image(image)}, step=step)

    def __enter__(self) -> "WeightsAndBiases":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, Preempted):
            self._run.mark_preempting()
            self._run.finish(exit_code=EXIT_CODE)
        else:
            self._run.finish(exit_code=0 if error is None else 1)


class MLflow:
    """A run of MLflow, in `run_dir`/mlflow unless MLFLOW_TRACKING_URI names another store."""

    def __init__(self, run_dir: Path, title: str, settings: dict[str, Any], run_id: str | None):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow = _import("mlflow", "mlflow")
        self._metric = mlflow.entities.Metric
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            # MLflow asks for consent before it uses a store of plain files, the one without SQL.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (run_dir.absolute() / "mlflow").as_uri()
        try:
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            if run_id is None:
                run_id = self._begin(title, settings)
            else:
                self._client.update_run(run_id, status="RUNNING")
        except mlflow.exceptions.MlflowException as error:
            raise InputError(
                f"--trackers mlflow could not start ({first_line(error)}): check "
                f"MLFLOW_TRACKING_URI, now {uri}"
            ) from error
        self.run_id = run_id

    def _begin(self, title: str, settings: dict[str, Any]) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run_id = self._client.create_run(number, run_name=title).info.run_id
        for key, value in _flat(settings).items():
            self._client.log_param(run_id, key, value)
        return run_id

    def scalars(self, step: int, values: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(name, float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self.run_id, metrics)

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        self._client.log_image(self.run_id, image, artifact_file=f"{name}/{step:08d}.png")

    def __enter__(self) -> "MLflow":
        return self

    def __exit__(self, kind, error, trace) -> None:
        stopped = isinstance(error, Preempted | KeyboardInterrupt)
        status = "FINISHED" if error is None else "KILLED" if stopped else "FAILED"
        self._client.set_terminated(self.run_id, status)


_KINDS = {"wandb": WeightsAndBiases, "mlflow": MLflow}


def _import(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"--trackers {extra} needs a library that is not installed: "
            f"pip install 'jaxcrop[{extra}]'"
        ) from error


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names, with values that YAML and JSON know."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value) if isinstance(value, Path | tuple) else value
    return flat
