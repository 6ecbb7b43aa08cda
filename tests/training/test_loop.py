"""Whole training runs on synthetic chips: resuming, freezing, and what stops a run."""

import json
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx
from small_runs import train_small_run

from jaxcrop.errors import InputError
from jaxcrop.training import validation
from jaxcrop.training.evaluation import evaluate_chips
from jaxcrop.training.runs import create_model, open_run

pytestmark = pytest.mark.usefixtures("small_backbones")


def _train(folder, records, **settings):
    """Train from random weights in `folder` and return the run."""
    small = {"architecture": "resnet18", "batch_size": 2}
    return train_small_run(folder, records, **small | settings)


def _arrays(model):
    state = nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return {path: np.asarray(variable[...]) for path, variable in state}


def _log(run):
    lines = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    return {
        (line["step"], name): value
        for line in lines
        for name, value in line.items()
        if "images_per_second" not in name
    }


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path, synthetic_records):
    """With a ViT, whose maps a trained neck makes a pyramid of; it is a small one."""
    settings = {"architecture": "vit-s16", "eval_every": 2, "tune": "frozen"}
    whole = _train(tmp_path / "whole", synthetic_records, steps=4, **settings)
    _train(tmp_path / "parts", synthetic_records, steps=2, **settings)
    parts = _train(tmp_path / "parts", synthetic_records, steps=4, **settings)

    expected, got = _arrays(whole.model("last")), _arrays(parts.model("last"))
    assert all(np.array_equal(expected[path], got[path]) for path in expected)
    assert _log(whole) == _log(parts)

    # The frozen backbone is as it began; neck, decoder and their statistics moved.
    begun = _arrays(create_model(whole))
    assert {path[0] for path in begun} == {"backbone", "neck", "decoder"}
    for path, value in expected.items():
        assert np.array_equal(value, begun[path]) == (path[0] == "backbone"), path

    with pytest.raises(InputError, match=r"a run with seed 0, not 1: .*another --run-dir"):
        _train(tmp_path / "parts", synthetic_records, steps=4, seed=1, **settings)
    with pytest.raises(InputError, match="a run with tune frozen, not full"):
        _train(tmp_path / "parts", synthetic_records, steps=4, **settings | {"tune": "full"})
    with pytest.raises(InputError, match="a run with architecture vit-s16, not resnet18"):
        _train(tmp_path / "parts", synthetic_records, steps=4)


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(
    tmp_path, synthetic_records, monkeypatch
):
    """Validation that is made far worse after all steps but the second: that one's is kept too."""
    worse = iter([1000.0, 0.0, 1000.0, 1000.0])

    def evaluate(*arguments, **how):
        found = evaluate_chips(*arguments, **how)
        return replace(found, loss=found.loss + next(worse))

    monkeypatch.setattr(validation, "evaluate_chips", evaluate)
    run = _train(tmp_path / "run", synthetic_records, steps=4, eval_every=1)
    losses = {step: value for (step, name), value in _log(run).items() if name == "validation/loss"}
    assert min(losses, key=losses.get) == 2
    kept = {
        int(path.name) for path in (run.folder / "checkpoints").iterdir() if path.name.isdigit()
    }
    assert kept == {2, 3, 4}
    assert run.title == "africa: satlas ResNet-18 (random weights), U-Net, synthetic sact 2.0.0"
    assert run.classes == (4, 5)
    assert open_run(run.folder).band_input == run.band_input


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, synthetic_records):
    with pytest.raises(InputError, match=r"loss became (nan|inf) at step \d.*--learning-rate"):
        _train(tmp_path / "run", synthetic_records, steps=4, eval_every=4, learning_rate=1e35)
    assert not list((tmp_path / "run").glob("checkpoints/*"))
