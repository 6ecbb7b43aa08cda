"""Against the real libraries, offline."""

import json
import sys

import numpy as np
import pytest

from jaxcrop.errors import InputError
from jaxcrop.training.trackers import open_trackers

SETTINGS = {"seed": 3, "optimizer": {"steps": 20, "loss": ("dice",)}}
PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def _run(folder, name, steps, resume, settings=SETTINGS):
    (tracker,) = open_trackers([name], folder, "a title", settings, resume)
    for step in steps:
        tracker.scalars(step, {"train/loss": step / 10})
    tracker.picture(steps[-1], "validation/0", PICTURE)
    tracker.close()
    return json.loads((folder / "trackers.json").read_text())[name]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_library_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"pip install 'jaxcrop\[{name}\]'"):
        open_trackers([name], tmp_path, "", {}, resume=False)
    assert not (tmp_path / "trackers.json").exists()


def test_none_asked_for_imports_nothing(tmp_path):
    assert open_trackers([], tmp_path, "", {}, resume=False) == []
    assert not list(tmp_path.iterdir())


def test_mlflow_keeps_one_run_over_a_resumption(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first = _run(tmp_path, "mlflow", [1, 2], resume=False)
    longer = SETTINGS | {"optimizer": {"steps": 40}}
    assert _run(tmp_path, "mlflow", [3], resume=True, settings=longer) == first

    client = mlflow.MlflowClient((tmp_path / "mlflow").as_uri())
    (experiment,) = (e for e in client.search_experiments() if e.name == "jaxcrop")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (first, "a title", "FINISHED")
    assert run.data.params["optimizer.steps"] == "20"
    history = client.get_metric_history(first, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    pictures = [entry.path for entry in client.list_artifacts(first, "validation/0")]
    assert pictures == ["validation/0/00000002.png", "validation/0/00000003.png"]
    assert _run(tmp_path, "mlflow", [1], resume=False) != first


def test_wandb_keeps_one_run_over_a_resumption(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    first = _run(tmp_path, "wandb", [1, 2], resume=False)
    assert _run(tmp_path, "wandb", [3], resume=True) == first
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert {file.name for file in files} == {f"run-{first}.wandb"}
    content = b"".join(file.read_bytes() for file in files)
    for part in (b"train/loss", b"a title", b"optimizer.steps"):
        assert part in content
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/**/*.png"))) == 2


def test_wandb_without_login_says_what_to_do(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def refuse(**_):
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(InputError, match=r"No API key configured\): run `wandb login`"):
        open_trackers(["wandb"], tmp_path, "", {}, resume=False)
