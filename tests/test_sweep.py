"""`python -m jaxcrop.sweep`: a study from its file to its results, whatever comes in between."""

import itertools
import os
import random
import re
import textwrap
import time

import numpy as np
import pytest
from launching import ended, launch

from jaxcrop import sweep
from jaxcrop.sweeps.cells import read_results
from jaxcrop.sweeps.study import read_study
from jaxcrop.sweeps.worker import feature_bytes

KILLS = int(os.environ.get("JAXCROP_FAULTS", "2"))
SEEDS = max(1, KILLS // 4)
"""Enough work for so many kills."""

CELLS = 4 * SEEDS + 1

STUDY = f"""
title: Heads and a run on a synthetic region
settings:
  region: africa
  backbone: satlas
  architecture: resnet18
  decoder: linear
  weights: random
  batch-size: 2
  steps: 2
  augmentation: none
parts:
  heads:
    method: heads
    budget: [4, 6]
    learning-rate: [1e-3, 1e-2]
    seed: {list(range(SEEDS))}
  run:
    budget: 4
  too many:
    method: heads
    budget: 4000
"""


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(textwrap.dedent(STUDY))
    return path


def arguments(study, records, out, *more):
    found = [str(study), "--out", str(out), "--data-dir", str(records), *more]
    return [*found, "--features", str(out / "features")]


def run(words) -> int:
    """The exit code of a sweep in this process."""
    with pytest.raises(SystemExit) as stopped:
        sweep.main(words)
    return stopped.value.code


def table(out):
    """What a sweep's results hold, but for the time they took."""
    return {
        result.cell.key: (
            result.chip_ids,
            result.per_chip.tolist(),
            result.calibration.tolist(),  # of the probabilities: it tells any two heads apart
            result.examples.tolist(),
        )
        for result in read_results(out / "results")
    }


@pytest.fixture(scope="module")
def undisturbed(synthetic_region, small_backbones, tmp_path_factory):
    """A finished sweep; its study file lies beside the folder."""
    folder = tmp_path_factory.mktemp("sweep")
    path = folder / "study.yaml"
    path.write_text(textwrap.dedent(STUDY))
    assert run(arguments(path, synthetic_region, folder / "out")) == 1  # a cell failed
    return folder / "out"


def test_a_sweep_computes_what_is_missing_and_sets_failures_aside(
    undisturbed, synthetic_region, capsys
):
    found = table(undisturbed)
    assert len(found) == CELLS
    calibrations = [
        result.calibration.tolist()
        for result in read_results(undisturbed / "results")
        if result.cell.method == "heads"
    ]
    assert len(calibrations) == CELLS - 1
    assert all(calibrations.count(one) == 1 for one in calibrations)
    (failure,) = (undisturbed / "failures").iterdir()
    said = failure.read_text()
    assert said.startswith("cell: africa satlas resnet18 linear id budget 4000")
    assert "cannot be had of 8" in said
    words = arguments(undisturbed.parent / "study.yaml", synthetic_region, undisturbed)
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("results/*/*")}
    assert run(words) == 1
    assert "0 cells computed, 0 failed" in capsys.readouterr().out
    assert run([*words, "--retry"]) == 1
    assert "0 cells computed, 1 failed" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.glob("results/*/*")}
    sweep.main(["status", words[0], "--out", str(undisturbed), "--once"])
    assert "│ too many │ africa │" in capsys.readouterr().out
    assert run([*words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert f"{CELLS + 1} cells, 0 to compute" in printed
    assert printed.count(" done ") == CELLS
    arrays = [np.load(path, mmap_mode="r") for path in undisturbed.glob("features/*/*.npy")]
    assert feature_bytes(read_study(undisturbed.parent / "study.yaml"), synthetic_region) == sum(
        array.nbytes for array in arrays
    )
    assert f"features: up to {sum(a.nbytes for a in arrays) / 1e9:.1f} GB" in printed
    assert not any(undisturbed.glob("runs/*/checkpoints"))


def test_results_say_what_they_are_of(undisturbed, synthetic_records):
    results = list(read_results(undisturbed / "results"))
    for result in results:
        assert result.synthetic
        assert len(result.chip_ids) == synthetic_records.sizes["test"]
        chips = {chip["chip_id"].decode(): chip for chip in synthetic_records.raw("test")}
        for chip_id, confusion in zip(result.chip_ids, result.per_chip, strict=True):
            label = chips[chip_id]["label"]
            counts = np.bincount(label[label > 0], minlength=6)
            np.testing.assert_array_equal(confusion.sum(axis=1), counts)
        assert (abs(result.lat) < 90).all()
        assert result.about["backbone"]["source"] == "random"
    heads = [result for result in results if result.cell.method == "heads"]
    assert {(r.cell.budget, r.cell.learning_rate) for r in heads} == {
        (budget, rate) for budget in (4, 6) for rate in (1e-3, 1e-2)
    }


def test_a_sweep_that_is_killed_again_and_again_ends_the_same(
    study, synthetic_region, undisturbed, tmp_path
):
    """Kills from the start of the process to its end, then one sweep that is left alone."""
    output = tmp_path / "output.txt"
    for name in ("first", "again"):  # the second time, programs are read from the cache
        began = time.monotonic()
        alone = launch(
            sweep.main, arguments(study, synthetic_region, tmp_path / name), output=output
        )
        assert ended(alone) == 1
    whole = time.monotonic() - began
    draw = random.Random(0)
    folders = (tmp_path / str(number) for number in itertools.count())
    kills, out = 0, next(folders)
    while kills < KILLS:
        process = launch(sweep.main, arguments(study, synthetic_region, out), output=output)
        process.join(draw.uniform(0.02, 0.5 / SEEDS) * whole)
        process.kill()
        code = ended(process)
        assert code in (1, -9), output.read_text()
        kills += code == -9
        if code == 1:  # before it could be killed
            assert table(out) == table(undisturbed)
            out = next(folders)
    words = arguments(study, synthetic_region, out)
    assert ended(launch(sweep.main, words, output=output)) == 1
    assert table(out) == table(undisturbed) == table(tmp_path / "again")


def test_two_workers_share_the_cells(study, synthetic_region, undisturbed, tmp_path):
    """None is computed twice, and together they do all."""
    out = tmp_path / "out"
    words = arguments(study, synthetic_region, out)
    outputs = [tmp_path / "one.txt", tmp_path / "two.txt"]
    processes = [launch(sweep.main, words, output=output) for output in outputs]
    assert {ended(process) for process in processes} <= {0, 1}
    texts = [output.read_text() for output in outputs]
    computed = [int(re.search(r"(\d+) cells computed", text)[1]) for text in texts]
    assert sum(computed) == CELLS
    assert table(out) == table(undisturbed)


def test_what_is_missing_is_said_before_any_work(study, tmp_path, capsys):
    assert run([str(study), "--out", str(tmp_path / "out"), "--data-dir", str(tmp_path)]) == 2
    assert "error: missing: the records of sact in" in capsys.readouterr().err
    assert run([str(study), "--workers", "0"]) == 2
    assert run([str(tmp_path / "absent.yaml")]) == 2
    assert run([str(study), "--data-dir", str(tmp_path), "--dry-run"]) == 0
    assert "missing: the records of sact" in capsys.readouterr().out
