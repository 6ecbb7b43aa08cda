"""Training commands as processes of their own, which begin quickly enough to be killed often."""

import atexit
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from small_backbones import small_backbones
from tensorboardX.proto.event_pb2 import Event, SessionLog

_PRELOADED = ["jaxcrop.training.loop", "jaxcrop.training.beginning", "tensorflow_datasets"]
"""What a training process imports, as far as no thread comes with it: a fork has none of them."""

_SPEED = "train/images_per_second"

_ENVIRONMENT = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

SMALL = (
    *("--backbone", "satlas", "--region", "africa", "--weights", "random"),
    *("--architecture", "resnet18", "--decoder", "linear", "--batchnorm-batches", "1"),
)
"""Settings of a model that is small, as `_call` makes it."""


def launch(target: Callable, *arguments, output: Path) -> BaseProcess:
    """Call `target` in a process forked from one that has imported JAX and run nothing.

    In it, tiny backbones stand for others (`small_backbones`). What it prints goes to the end of
    the file `output`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with mock.patch.dict(os.environ, _ENVIRONMENT):
        process = context.Process(target=_call, args=(target, arguments, str(output)))
        process.start()
    return process


def _call(target: Callable, arguments: Sequence, output: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    assert len(os.listdir(f"/proc/{os.getppid()}/task")) == 1
    try:
        with small_backbones():
            target(*arguments)
    finally:
        atexit._run_exitfuncs()  # as an interpreter does that is not forked: JAX waits for others


def train(arguments: Sequence[str], *, output: Path, devices: int = 1) -> BaseProcess:
    """`python -m jaxcrop.train` with these arguments, on so many virtual CPU devices."""
    return launch(_train, list(arguments), devices, output=output)


def _train(arguments: list[str], devices: int) -> None:
    from jaxcrop.train import main

    jax.config.update("jax_num_cpu_devices", devices)
    main(arguments)


def train_from_shell(arguments: Sequence[str], *, output: Path) -> subprocess.Popen:
    """The same as a process that nothing was imported for, as a shell starts it."""
    program = (
        "import runpy\nfrom small_backbones import small_backbones\n"
        "with small_backbones(): runpy.run_module('jaxcrop.train', run_name='__main__')"
    )
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": "1",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    with output.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments], env=environment, stdout=file, stderr=file
        )


def ended(process: BaseProcess, seconds: float = 300) -> int:
    """The exit code of a process, once it has ended: -9 if it was killed."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        pytest.fail(f"a process did not end in {seconds} s")
    return process.exitcode


def wait_until(condition: Callable[[], bool], process: BaseProcess, seconds: float = 300) -> bool:
    """Wait for `condition`; False where the process ends without it."""
    until = time.monotonic() + seconds
    while not condition():
        if process.exitcode is not None:
            return condition()
        if time.monotonic() > until:
            process.kill()
            pytest.fail(f"nothing happened in {seconds} s")
        time.sleep(0.01)
    return True


def logged(run: Path) -> dict[tuple[int, str], float]:
    """What metrics.jsonl holds but for the speed, by step and name: each once."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    values = [
        ((row["step"], name), value)
        for row in rows
        for name, value in row.items()
        if name not in ("step", _SPEED)
    ]
    assert len(dict(values)) == len(values)
    return dict(values)


def tensorboard(run: Path) -> dict[tuple[int, str], float]:
    """The same as TensorBoard shows it: of a step that was taken back, what came later.

    Its numbers have 32 bits. A file ends before a record that was cut off.
    """
    values: dict[tuple[int, str], float] = {}
    for path in sorted(
        (run / "tensorboard").glob("events*"), key=lambda path: path.stat().st_mtime
    ):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            if at + 16 + length > len(data):
                break
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            if event.session_log.status == SessionLog.START:
                values = {key: value for key, value in values.items() if key[0] < event.step}
            for value in event.summary.value:
                if value.HasField("simple_value") and value.tag != _SPEED:
                    values[event.step, value.tag] = value.simple_value
    return values


def steps(run: Path) -> list[int]:
    """The steps of the checkpoints of a run, in order."""
    found = (run / "checkpoints").glob("*")
    return sorted(int(path.name) for path in found if path.name.isdigit())


def arrays(run: Path, step: int | None = None) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, the last if no other is asked for, read by Orbax alone.

    Those that are frozen, which lie beside the checkpoints, are among them.
    """
    names = [str(steps(run)[-1] if step is None else step), "frozen"]
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    found = {}
    for folder in filter(Path.exists, (run / "checkpoints" / name for name in names)):
        wanted = {
            part: {
                name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
                for name, leaf in values.items()
            }
            for part, values in ocp.checkpointables_metadata(folder).metadata.items()
        }
        for part, values in ocp.load_checkpointables(folder, wanted).items():
            found |= {f"{part}/{name}": np.asarray(value) for name, value in values.items()}
    return found


def assert_same_run(one: Path, other: Path) -> None:
    """Two run folders hold the same losses, metrics and checkpoints, to the bit."""
    assert logged(one) == logged(other)
    assert steps(one) == steps(other)
    for step in steps(one):
        expected, got = arrays(one, step), arrays(other, step)
        assert expected.keys() == got.keys()
        for name, value in expected.items():
            assert value.tobytes() == got[name].tobytes(), (step, name)
    scores = [(run / "evaluation" / "test" / "metrics.json").read_bytes() for run in (one, other)]
    assert scores[0] == scores[1]
    shown = {key: np.float32(value) for key, value in logged(one).items()}
    assert tensorboard(other) == shown
