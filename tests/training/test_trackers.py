"""Against the real libraries, offline."""

import json
import sys
from contextlib import nullcontext

import numpy as np
import pytest

from jaxcrop.errors import InputError
from jaxcrop.training.preemption import Preempted
from jaxcrop.training.trackers import open_trackers

SETTINGS = {"seed": 3, "optimizer": {"steps": 20, "loss": ("dice",)}}
PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def _run(folder, name, steps, *, resume, settings=SETTINGS, end=None):
    """Report `steps` and then end by the exception `end`, or well."""
    (tracker,) = open_trackers([name], folder, "a title", settings, resume)
    with nullcontext() if end is None else pytest.raises(type(end)), tracker:
        for step in steps:
            tracker.scalars(step, {"train/loss": step / 10})
        tracker.picture(steps[-1], "validation/0", PICTURE)
        if end is not None:
            raise end
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


@pytest.mark.parametrize(
    ("end", "status"),
    [(None, "FINISHED"), (InputError("full"), "FAILED"), (Preempted(), "KILLED")],
)
def test_mlflow_knows_how_a_run_ended(tmp_path, monkeypatch, end, status):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_id = _run(tmp_path, "mlflow", [1], resume=False, end=end)
    client = mlflow.MlflowClient((tmp_path / "mlflow").as_uri())
    assert client.get_run(run_id).info.status == status
    assert _run(tmp_path, "mlflow", [2], resume=True) == run_id
    assert client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.parametrize(("end", "code"), [(None, 0), (InputError("full"), 1), (Preempted(), 75)])
def test_wandb_knows_how_a_run_ended(tmp_path, monkeypatch, end, code):
    """In the file that `wandb sync` sends."""
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    _run(tmp_path, "wandb", [1], resume=False, end=end)
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records = [Record.FromString(content) for content in _leveldb_records(path.read_bytes(), 7)]
    assert [r.exit.exit_code for r in records if r.HasField("exit")] == [code]
    preempting = any(r.HasField("preempting") for r in records)
    assert preempting == isinstance(end, Preempted)


def _leveldb_records(content: bytes, at: int):
    """The records of a log in LevelDB's format, which begins at `at`."""
    whole = b""
    while at + 7 <= len(content):
        if (left := -at % 2**15) < 7 and left:  # a block's end that is too short for a record
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last
            yield whole
            whole = b""


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
