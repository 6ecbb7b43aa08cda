"""Builds that are killed, and builds by Apache Beam, end in the same bytes as any other."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxcrop.data.synthetic import write_region

SMALL_SHARDS = """
import sys
from pathlib import Path
from jaxcrop_datasets import building, crop_chips
from jaxcrop.data.build import build
crop_chips.SHARD_CHIPS = 2
build("sact", Path(sys.argv[1]), Path(sys.argv[2]), beam_options=(sys.argv[3:] or [None])[0])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("africa")
    write_region(folder, "africa", chips=12, seed=1)
    return folder


def start(source: Path, out: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-c", SMALL_SHARDS, str(source), str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def build(source: Path, out: Path, *options: str) -> dict[Path, bytes]:
    """Build in a process of its own: the files it leaves, by their place below `out`."""
    process = start(source, out, *options)
    _, complaint = process.communicate()
    assert process.returncode == 0, complaint
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory) -> dict[Path, bytes]:
    return build(source, tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("shards", [0, 1, 3])
def test_a_killed_build_goes_on_and_ends_in_the_same_bytes(source, undisturbed, tmp_path, shards):
    process = start(source, tmp_path)
    partial = tmp_path / "sact" / "standard" / ".2.0.0.partial"
    while process.poll() is None and len(list(partial.glob("sact-*.array_record*"))) < shards:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = {path: path.stat() for path in partial.glob("sact-*-of-*") if path.suffix != ".json"}
    assert build(source, tmp_path) == undisturbed
    # What was finished is not made again: the very file went to its place.
    for path, status in kept.items():
        assert os.stat(partial.parent / "2.0.0" / path.name).st_ino == status.st_ino


def test_a_killed_build_of_other_files_begins_anew(source, undisturbed, tmp_path):
    other = tmp_path / "other"
    write_region(other, "africa", chips=12, seed=2)
    process = start(other, tmp_path / "out")
    partial = tmp_path / "out" / "sact" / "standard" / ".2.0.0.partial"
    while process.poll() is None and not list(partial.glob("sact-*.json")):
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert build(source, tmp_path / "out") == undisturbed


def test_two_processes_do_not_build_the_same(source, tmp_path):
    from jaxcrop_datasets.building import PartialBuild

    partial = PartialBuild(tmp_path / "sact" / "standard" / ".2.0.0.partial")
    with partial.held("of another process"):
        process = start(source, tmp_path)
        _, complaint = process.communicate()
    assert process.returncode != 0
    assert "another process builds in" in complaint


def test_beam_writes_the_same_bytes(source, undisturbed, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the beam extra")
    options = "--runner=DirectRunner --direct_num_workers=2 --direct_running_mode=multi_processing"
    assert build(source, tmp_path, options) == undisturbed
