"""Checkpoints of a small state: damaged, on a full disk, and by a process that is killed."""

import dataclasses
import os
import random
import resource
import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from launching import ended, launch, steps, wait_until

from jaxcrop.errors import InputError
from jaxcrop.training.checkpoints import Checkpoints
from jaxcrop.training.step import TrainState, begun

_FROZEN = 7.0


def _state(step: int, size: int = 2000, frozen: float = _FROZEN) -> TrainState:
    """A state whose every value is its step's, but for what is frozen."""
    params = {"decoder/kernel": jnp.zeros(size)}
    state = begun(params, {"backbone/mean": jnp.zeros(3)}, optax.adam(1e-3), patience=1)
    state = jax.tree.map(lambda leaf: jnp.full_like(leaf, step), state)
    return dataclasses.replace(state, frozen={"backbone/kernel": jnp.full(size, frozen)})


def _assert_is(state: TrainState, step: int) -> None:
    assert (np.asarray(state.frozen["backbone/kernel"]) == _FROZEN).all()
    rest = dataclasses.replace(state, frozen={})
    assert all((np.asarray(leaf) == step).all() for leaf in jax.tree.leaves(rest))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with checkpoints of the steps 1, 2 and 3; the first is the best."""
    folder = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(folder)
    for step in (1, 2, 3):
        checkpoints.save(_state(step), float(step))
    return folder


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


def _files(run: Path, name: int | str) -> list[Path]:
    return sorted(p for p in (run / "checkpoints" / str(name)).rglob("*") if p.is_file())


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def _delete(path: Path, rng: random.Random) -> None:
    del rng
    path.unlink()


def test_what_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(_state(0))[1] == []
    _assert_is(checkpoints.restore(_state(0))[0], 0)
    for step, loss in enumerate([5.0, 3.0, 4.0, None, 3.5], start=1):
        checkpoints.save(_state(step), loss)
    assert steps(tmp_path) == [2, 4, 5]
    state, faults = checkpoints.restore(_state(0))
    _assert_is(state, 5)
    assert faults == []
    like = jax.eval_shape(lambda: _state(0).params | _state(0).frozen | _state(0).statistics)
    assert checkpoints.load_model("best", like)["decoder/kernel"][0] == 2
    assert checkpoints.load_model("last", like)["decoder/kernel"][0] == 5


@pytest.mark.parametrize("harm", [_flip, _truncate, _delete])
def test_a_damaged_file_of_the_latest_is_noticed(run, copy, harm):
    """Each of its files, one at a time: the checkpoint before is restored instead."""
    rng = random.Random(0)
    latest = copy / "checkpoints" / "3"
    files = _files(run, 3)
    for path in files:
        shutil.rmtree(latest, ignore_errors=True)
        shutil.copytree(run / "checkpoints" / "3", latest)
        damaged = latest / path.relative_to(run / "checkpoints" / "3")
        if not damaged.stat().st_size and harm is not _delete:
            continue
        harm(damaged, rng)
        checkpoints = Checkpoints(copy)
        like = jax.eval_shape(lambda: _state(0).params)
        with pytest.raises(InputError, match="is damaged or missing: restore the file"):
            checkpoints.load_model("last", like)
        state, (fault,) = checkpoints.restore(_state(0))
        _assert_is(state, 2)
        assert "is damaged or missing" in fault
        assert str(latest) in fault
        assert steps(copy) == [1, 2]
    assert len(files) > 20


@pytest.mark.parametrize("harm", [_flip, _truncate, _delete])
def test_damage_to_what_is_frozen_is_noticed_and_mended(run, copy, harm):
    """Each of its files: nothing is predicted with it, and the next process writes it again."""
    rng = random.Random(0)
    folder = copy / "checkpoints" / "frozen"
    like = jax.eval_shape(lambda: _state(0).params | _state(0).frozen | _state(0).statistics)
    files = [path for path in _files(run, "frozen") if path.stat().st_size or harm is _delete]
    for path in files:
        shutil.rmtree(folder)
        shutil.copytree(run / "checkpoints" / "frozen", folder)
        harm(folder / path.relative_to(run / "checkpoints" / "frozen"), rng)
        with pytest.raises(InputError, match=r"frozen/.* is damaged or missing: restore the file"):
            Checkpoints(copy).load_model("last", like)
        state, (fault,) = Checkpoints(copy).restore(_state(0))
        _assert_is(state, 3)
        assert str(folder) in fault
        assert fault.endswith("is damaged or missing: written again as the run began with it")
        values = Checkpoints(copy).load_model("last", like)
        assert {name: float(value[0]) for name, value in values.items()} == {
            "decoder/kernel": 3,
            "backbone/kernel": _FROZEN,
            "backbone/mean": 3,
        }
    assert len(files) > 5


def test_what_is_frozen_is_written_once(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(_state(1), 1.0)
    before = {path: path.stat().st_mtime_ns for path in _files(tmp_path, "frozen")}
    checkpoints.save(_state(2), 1.0)
    state, faults = Checkpoints(tmp_path).restore(_state(0, frozen=9.0))  # as it was, not as it is
    _assert_is(state, 2)
    assert faults == []
    Checkpoints(tmp_path).save(_state(3), 1.0)
    assert {path: path.stat().st_mtime_ns for path in _files(tmp_path, "frozen")} == before


def test_a_run_that_saved_no_checkpoint_begins_anew(tmp_path):
    """It may begin with other weights than those that lie there."""
    Checkpoints(tmp_path).save(_state(1, frozen=9.0), 1.0)
    shutil.rmtree(tmp_path / "checkpoints" / "1")
    checkpoints = Checkpoints(tmp_path)
    _assert_is(checkpoints.restore(_state(0))[0], 0)
    checkpoints.save(_state(1), 1.0)
    _assert_is(Checkpoints(tmp_path).restore(_state(0, frozen=9.0))[0], 1)


def test_where_all_are_damaged_nothing_is_taken_away(copy):
    for step in (1, 2, 3):
        _flip(_files(copy, step)[-1], random.Random(step))
    for _ in range(2):
        with pytest.raises(InputError, match=r"holds no checkpoint that is whole \(.*; .*; .*\)"):
            Checkpoints(copy).restore(_state(0))
    assert steps(copy) == [1, 2, 3]


def test_a_damaged_best_is_neither_replaced_nor_passed_over(copy):
    """It was the best, and no later one is."""
    (copy / "checkpoints" / "1" / "validation_loss.json").write_text("9.0")
    checkpoints = Checkpoints(copy)
    checkpoints.save(_state(4), 4.0)
    assert steps(copy) == [1, 3, 4]
    with pytest.raises(InputError, match=r"1/validation_loss\.json is damaged or missing"):
        checkpoints.load_model("best", {})


def test_a_checkpoint_of_another_version_is_refused(copy):
    other = _state(0)
    other.params["decoder/bias"] = jnp.zeros(3)
    with pytest.raises(InputError, match="3 is of another version of jaxcrop"):
        Checkpoints(copy).restore(other)


@pytest.mark.parametrize("size", [2000, 200_000])
def test_files_that_cannot_be_written_whole(tmp_path, size):
    """The system refuses to let a file grow: at each size of a file that a checkpoint has."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(_state(1, size), 1.0)
    sizes = sorted({path.stat().st_size for path in _files(tmp_path, 1)} - {0})[::2]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for largest in sizes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, before[1]))
        try:
            with pytest.raises(InputError, match=r"2 cannot be written \(File too large\): free"):
                checkpoints.save(_state(2, size), 1.0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert steps(tmp_path) == [1]
        _assert_is(checkpoints.restore(_state(0, size))[0], 1)
    assert len(sizes) > 5
    checkpoints.save(_state(2, size), 1.0)
    assert steps(tmp_path) == [1, 2]


def _save_for_ever(folder: Path) -> None:
    """Go on with the last checkpoint, one after the other."""
    checkpoints = Checkpoints(folder)
    state, faults = checkpoints.restore(_state(0))
    assert faults == []
    for step in range(int(state.step) + 1, 10**6):
        checkpoints.save(_state(step), float(step % 7))


def test_killed_while_checkpoints_are_written(tmp_path):
    """After each kill the latest checkpoint is whole, of its step alone, and never an earlier one.

    Nothing that a killed process left unfinished stays.
    """
    rng = random.Random(0)
    reached = [0]
    for _ in range(24):
        process = launch(_save_for_ever, tmp_path, output=tmp_path / "output")
        wait_until(lambda: steps(tmp_path)[-1:] > reached[-1:], process)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        assert ended(process) == -9, (tmp_path / "output").read_text()
        state, faults = Checkpoints(tmp_path).restore(_state(0))
        _assert_is(state, int(state.step))
        assert faults == []
        assert not list((tmp_path / "checkpoints").glob("*.partial*"))
        reached.append(int(state.step))
    assert reached == sorted(set(reached))
    losses = [step % 7 for step in steps(tmp_path)]
    assert min(losses) == 0  # the best of them all is there
