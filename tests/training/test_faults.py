"""Training commands that are killed, stopped, starved of disk, damaged and disturbed.

Whatever happens, the same command goes on, and what it leaves is to the bit what an undisturbed run
leaves. JAXCROP_FAULTS=N kills N times instead of 4.
"""

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from launching import (
    SMALL,
    assert_same_run,
    ended,
    steps,
    train,
    train_from_shell,
    wait_until,
)

KILLS = int(os.environ.get("JAXCROP_FAULTS", "4"))


@pytest.fixture(scope="module")
def command(synthetic_region):
    """The arguments of a run of twelve steps, six validations and checkpoints."""

    def arguments(run: Path, *more: str) -> list[str]:
        return [
            *(*SMALL, "--tune", "full"),
            *("--data-dir", str(synthetic_region), "--run-dir", str(run)),
            *("--batch-size", "2", "--steps", "12", "--eval-every", "2", *more),
        ]

    return arguments


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    output = folder.with_name("output")
    assert ended(train(command(folder), output=output)) == 0, output.read_text()
    assert steps(folder)[-2:] == [10, 12]
    return folder


def _go_on(arguments, output: Path, code: int = 0) -> str:
    """Give the command, and return what it printed."""
    output.write_text("")
    assert ended(train(arguments, output=output)) == code, output.read_text()
    return output.read_text()


def _lines(run: Path) -> int:
    """The steps and validations in the log of a run."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _kill(process, run: Path, rng: random.Random) -> int:
    """Kill a training process: any time after its start, after a step, or as it saves."""
    moment, begun = rng.choice(["start", "step", "save"]), _lines(run)
    if moment == "start":
        limit = time.monotonic() + rng.uniform(0, 4)
        wait_until(lambda: time.monotonic() > limit, process)
    elif moment == "step":
        more = rng.randint(1, 6)
        wait_until(lambda: _lines(run) >= begun + more, process)
    else:
        for _ in range(rng.randint(1, 2)):
            wait_until(lambda: list(run.glob("checkpoints/*.partial*")), process)
            time.sleep(rng.uniform(0, 0.3))
    process.kill()
    return ended(process)


def test_killed_at_any_moment(command, undisturbed, tmp_path):
    rng, kills, run = random.Random(0), 0, tmp_path / "0"
    output = tmp_path / "output"
    reached = set()
    while kills < KILLS:
        process = train(command(run), output=output)
        code = _kill(process, run, rng)
        assert code in (0, -9), output.read_text()
        kills += code == -9
        reached.add((steps(run) or [0])[-1])
        if code == 0:  # before it could be killed
            assert_same_run(undisturbed, run)
            run = tmp_path / str(kills)
    _go_on(command(run), output)
    assert_same_run(undisturbed, run)
    assert len(reached) > min(3, KILLS // 4)
    assert (run / "curves.png").exists()


def test_sigterm_is_answered_with_a_checkpoint(command, undisturbed, tmp_path):
    """While it begins, and in the middle of a process that a shell started; each goes on later."""
    run, output = tmp_path / "run", tmp_path / "output"
    process = train(command(run), output=output)
    wait_until((run / "config.yaml").exists, process)
    process.terminate()
    assert ended(process) == 75, output.read_text()
    assert steps(run) == []

    process = train_from_shell(command(run), output=output)
    while _lines(run) < 5 and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    assert process.wait(300) == 75, output.read_text()
    assert "written; the same command goes on" in (run / "train.log").read_text()
    stopped_at = steps(run)[-1]
    assert 2 < stopped_at < 12

    printed = _go_on(command(run), output)
    assert f"going on with {run} from step {stopped_at}" in printed
    assert f"going on with {run} from step {stopped_at}" in (run / "train.log").read_text()
    assert_same_run(undisturbed, run)


def _damage(run: Path, step: int, rng: random.Random) -> None:
    files = [p for p in (run / "checkpoints" / str(step)).rglob("*") if p.stat().st_size > 0]
    path = rng.choice([path for path in files if path.is_file()])
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def test_a_damaged_latest_checkpoint(command, undisturbed, tmp_path):
    """The run goes on from the one before, and says so; with all damaged it is refused."""
    run, output = shutil.copytree(undisturbed, tmp_path / "run"), tmp_path / "output"
    _damage(run, 12, random.Random(0))
    printed = _go_on(command(run), output)
    for text in (printed, (run / "train.log").read_text()):
        assert "is damaged or missing: going on from the checkpoint before" in text
        assert f"going on with {run} from step 10" in text
    assert_same_run(undisturbed, run)

    before = sorted(run.rglob("*"))
    for step in steps(run):
        _damage(run, step, random.Random(step))
    printed = _go_on(command(run), output, 2)
    (error,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert "holds no checkpoint that is whole" in error
    assert "Traceback" not in printed
    assert sorted(run.rglob("*")) == before


def test_two_processes_in_one_folder_and_other_settings(command, undisturbed, tmp_path):
    """The second is refused, the first goes on as if nothing had happened."""
    run, output, other = tmp_path / "run", tmp_path / "output", tmp_path / "other"
    first = train(command(run), output=output)
    wait_until(lambda: _lines(run) > 2, first)
    refused = _go_on(command(run), other, 2)
    assert f"error: another process trains in {run}: wait for it" in refused
    assert ended(first) == 0, output.read_text()
    assert_same_run(undisturbed, run)

    changed = ["--seed", "3", "--learning-rate", "0.01", "--loss", "dice"]
    (error,) = _go_on(command(run, *changed), other, 2).splitlines()
    assert "loss ['cross-entropy'], not ['dice']" in error
    assert "learning_rate 0.001, not 0.01" in error
    assert "seed 0, not 3" in error
    assert_same_run(undisturbed, run)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 20 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(command, undisturbed, small_disk, tmp_path):
    """Ever more room, until it is enough: every time one sentence, and it goes on from there."""
    run, output, ballast = small_disk / "run", tmp_path / "output", small_disk / "ballast"
    reached = []
    for free in (0, 500, 2_000):  # KB
        ballast.unlink(missing_ok=True)
        left = shutil.disk_usage(small_disk).free - free * 1024
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(left, 1))
        printed = _go_on(command(run), output, 2)
        (error,) = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert "cannot be written (No space left on device): free" in error
        assert "Traceback" not in printed
        reached.append((steps(run) or [0])[-1])
    assert reached == sorted(reached)
    ballast.unlink()
    _go_on(command(run), output)
    assert_same_run(undisturbed, run)
