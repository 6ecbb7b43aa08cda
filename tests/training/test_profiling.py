import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from jaxcrop.training.profiling import Profile


def _steps(profile, count):
    """Run `count` steps, each a function of its own name, on the state of the one before."""
    state = jnp.ones((64, 64))
    for step in range(1, count + 1):
        profile.step(step)

        def work(x):
            return jnp.sin(x @ x)

        work.__name__ = f"work_of_step_{step}"
        state = jax.jit(work)(state)


def _names(folder):
    (path,) = folder.glob("plugins/profile/*/perfetto_trace.json.gz")
    assert list(path.parent.glob("*.xplane.pb"))
    with gzip.open(path) as file:
        return json.dumps(json.load(file)["traceEvents"])


def test_only_the_steps_asked_for_are_traced(tmp_path):
    profile = Profile(tmp_path, 3, 4)
    _steps(profile, 6)
    profile.close()
    names = _names(tmp_path)
    traced = [step for step in range(1, 7) if f"work_of_step_{step}" in names]
    assert traced == [3, 4]


def test_a_run_that_ends_early_leaves_no_trace_running(tmp_path):
    profile = Profile(tmp_path / "a", 2, 100)
    _steps(profile, 3)
    profile.close()
    profile.close()
    assert "work_of_step_3" in _names(tmp_path / "a")
    with jax.profiler.trace(tmp_path / "b"):  # jax allows one trace at a time
        pass


def test_calls_of_many_steps_are_traced_whole(tmp_path):
    profile = Profile(tmp_path, 3, 6)
    for step in (1, 101, 201):
        profile.step(step)
        jax.jit(jnp.cos)(jnp.ones(step)).block_until_ready()
    profile.close()
    assert len(list(tmp_path.glob("plugins/profile/*/perfetto_trace.json.gz"))) == 1


@pytest.mark.parametrize("steps", [(0, -1), (5, 6)])
def test_none(tmp_path, steps):
    profile = Profile(tmp_path, *steps)
    _steps(profile, 2)
    profile.close()
    assert not list(tmp_path.iterdir())
