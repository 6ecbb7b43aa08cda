"""Several processes that train together equal one process, on as many devices or on one.

They are real processes, which find each other on the loopback interface.
"""

import errno
import os
import socket
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from launching import SMALL, arrays, ended, launch, logged, steps, train, wait_until
from tensorboardX.event_file_writer import EventsWriter

from jaxcrop.files import locked


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def _train_watched(arguments: list[str], devices: int, run: str, full: bool) -> None:
    """Train, and tell which files of the run folder Python opens to write, makes or moves.

    If `full`, the disk is, by the time that the logs are opened.
    """
    from jaxcrop.train import main

    def tell(event: str, details: tuple) -> None:
        writes = event in ("os.mkdir", "os.rename", "os.remove")
        if event == "open" and isinstance(details[2], int):
            writes = details[2] & (os.O_WRONLY | os.O_RDWR)
        if writes and str(details[0]).startswith(run):
            print(f"wrote {details[0]}", flush=True)

    sys.addaudithook(tell)
    if full:
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        mock.patch.object(EventsWriter, "write_event", side_effect=error).start()
    jax.config.update("jax_num_cpu_devices", devices)
    main(arguments)


class _Pair:
    """Two processes of four devices each, which train in one folder."""

    def __init__(self, arguments: list[str], run: Path, folder: Path, *, full: bool = False):
        port = _free_port()
        self.run = run
        self.outputs = [folder / f"{port}-{number}" for number in (0, 1)]
        self.processes = []
        for number, output in enumerate(self.outputs):
            joined = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2"]
            line = [*arguments, "--run-dir", str(run), *joined, "--process-id", str(number)]
            first_is_full = full and number == 0
            watched = launch(_train_watched, line, 4, str(run), first_is_full, output=output)
            self.processes.append(watched)

    def ended(self, seconds: float = 300) -> list[int]:
        """Their exit codes."""
        return [ended(process, seconds) for process in self.processes]

    def printed(self, number: int) -> list[str]:
        """What one of them printed itself."""
        output = self.outputs[number]
        lines = output.read_text().splitlines() if output.exists() else []
        others = "Gloo", "ranks", "wrote ", "preemption_notifier"  # Gloo's may be in pieces
        return [x for x in lines if len(x) > 5 and not any(other in x for other in others)]

    def written(self, number: int) -> set[str]:
        """The parts of the run folder that one of them wrote."""
        lines = self.outputs[number].read_text().splitlines()
        paths = [Path(line.removeprefix("wrote ")) for line in lines if line.startswith("wrote ")]
        return {path.relative_to(self.run).parts[0] for path in paths if path != self.run}


@pytest.fixture(scope="module")
def arguments(synthetic_region):
    return [
        *SMALL,
        *("--data-dir", str(synthetic_region), "--batch-size", "8"),
        *("--steps", "8", "--eval-every", "2"),
    ]


def _train_alone(arguments: list[str], folder: Path) -> Path:
    process = train([*arguments, "--run-dir", str(folder / "run")], output=folder / "output")
    assert ended(process) == 0, (folder / "output").read_text()
    return folder / "run"


@pytest.fixture(scope="module")
def alone(arguments, tmp_path_factory) -> Path:
    """The run of one process on one device."""
    return _train_alone(arguments, tmp_path_factory.mktemp("alone"))


def _assert_logs_close(one: Path, other: Path) -> None:
    """The same losses and metrics, but for rounding."""
    expected, got = logged(one), logged(other)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5, err_msg=str(name))


def _assert_close(one: Path, other: Path) -> None:
    """And the same parameters, statistics and moments."""
    _assert_logs_close(one, other)
    assert steps(one)[-1] == steps(other)[-1]
    expected, got = arrays(one), arrays(other)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        scale = max(np.abs(value).max(), 1e-12)
        np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-4 * scale, err_msg=name)


def test_eight_devices_equal_one(arguments, alone, tmp_path):
    run = tmp_path / "run"
    output = tmp_path / "output"
    process = train([*arguments, "--run-dir", str(run)], devices=8, output=output)
    assert ended(process) == 0, output.read_text()
    _assert_close(alone, run)


def test_batches_that_do_not_divide_over_the_devices(arguments, tmp_path):
    """As in the paper's protocol, where they differ in size and the validation loss is theirs."""
    more = ["--batch-size", "3", "--sampling", "replacement", "--validation-loss", "batches"]
    runs = [tmp_path / "1", tmp_path / "2"]
    for devices, run in zip((1, 2), runs, strict=True):
        output = tmp_path / f"output-{devices}"
        process = train([*arguments, *more, "--run-dir", str(run)], devices=devices, output=output)
        assert ended(process) == 0, output.read_text()
    _assert_close(*runs)


def test_two_processes_equal_one(arguments, alone, tmp_path):
    run = tmp_path / "run"
    pair = _Pair(arguments, run, tmp_path)
    assert pair.ended() == [0, 0], pair.printed(0) + pair.printed(1)
    _assert_close(alone, run)


def test_two_processes_with_spread_parameters_that_are_stopped(arguments, alone, tmp_path):
    """A SIGTERM to one of them stops both after the same step; they go on from there.

    The first alone tells of it, and writes the run folder but for its arrays.
    """
    run, arguments = tmp_path / "run", [*arguments, "--shard-parameters"]
    (tmp_path / "alone").mkdir()
    spread_alone = _train_alone(arguments, tmp_path / "alone")
    pair = _Pair(arguments, run, tmp_path)
    wait_until(lambda: any("step 1/8" in line for line in pair.printed(0)), pair.processes[0])
    pair.processes[1].terminate()
    assert pair.ended() == [75, 75], pair.printed(0) + pair.printed(1)
    (stopped_at,) = steps(run)[-1:]
    assert stopped_at < 8

    pair = _Pair(arguments, run, tmp_path)
    assert pair.ended() == [0, 0], pair.printed(0) + pair.printed(1)
    assert f"going on with {run} from step {stopped_at}" in pair.printed(0)
    assert pair.printed(1) == []
    assert pair.written(1) <= {"checkpoints"}
    assert "evaluation" in pair.written(0)
    _assert_close(spread_alone, run)
    _assert_logs_close(alone, run)


def test_where_one_fails_the_other_ends_too(arguments, tmp_path):
    run = tmp_path / "run"
    pair = _Pair(arguments, run, tmp_path, full=True)
    codes = pair.ended(100)
    assert (codes[0], codes[1] != 0) == (2, True), pair.printed(0) + pair.printed(1)
    assert f"error: {run} cannot be written (No space left on device)" in pair.printed(0)[-1]


def test_where_one_is_refused_the_other_stops_too(arguments, alone, tmp_path):
    with locked(alone / ".lock", "it is ours"):
        pair = _Pair(arguments, alone, tmp_path)
        assert pair.ended() == [2, 2]
    assert f"error: another process trains in {alone}" in pair.printed(0)[-1]
    assert "error: another of the processes had to stop" in pair.printed(1)[-1]
