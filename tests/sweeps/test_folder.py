"""The folder of a sweep, shared by processes."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from test_cells import CELL, result_of

from jaxcrop.errors import InputError
from jaxcrop.sweeps.folder import SweepFolder
from jaxcrop.sweeps.study import Study

OTHER = dataclasses.replace(CELL, seed=1)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "file.yaml").write_text("title: a study")
    folder = SweepFolder(tmp_path / "sweep")
    folder.begin(Study(tmp_path / "file.yaml", "a study", (CELL, OTHER)))
    return folder


def test_cells_are_open_until_they_are_done_or_in_quarantine(folder):
    assert (folder.path / "study.yaml").read_text() == "title: a study"
    assert folder.open_cells([CELL, OTHER]) == [CELL, OTHER]
    (folder.run_dir(CELL) / "checkpoints").mkdir(parents=True)
    folder.keep(result_of(CELL))
    assert not (folder.run_dir(CELL) / "checkpoints").exists()
    assert folder.open_cells([CELL, OTHER]) == [OTHER]
    folder.quarantine(OTHER, InputError("no such chips: build them"))
    assert folder.has_failed(OTHER)
    assert not folder.open_cells([CELL, OTHER])
    (path,) = (folder.path / "failures").iterdir()
    assert path.read_text() == f"cell: {OTHER}\nno such chips: build them\n"
    folder.release([OTHER])
    assert folder.open_cells([CELL, OTHER]) == [OTHER]


def test_another_error_keeps_its_traceback(folder):
    try:
        np.zeros(2).reshape(3)
    except ValueError as error:
        folder.quarantine(CELL, error)
    (path,) = (folder.path / "failures").iterdir()
    assert "test_folder.py" in path.read_text()
    assert path.read_text().splitlines()[-1].startswith("ValueError: cannot reshape")


HOLD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_cells import CELL
from jaxcrop.sweeps.folder import SweepFolder
with SweepFolder(Path({path!r})).claimed([CELL]) as mine:
    print(mine, flush=True)
    sys.stdin.readline()
"""


def test_a_claim_keeps_others_out_until_its_process_dies(folder, request):
    tests = str(request.path.parent)
    code = HOLD.format(tests=tests, path=str(folder.path))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "True\n"
    assert folder.is_claimed([CELL])
    with folder.claimed([CELL]) as mine:
        assert not mine
    with folder.claimed([OTHER]) as mine:
        assert mine
    claim = folder.path / "claims" / f"{CELL.key}.lock"
    assert f'"process": {process.pid}' in claim.read_text()  # nobody has wiped it
    process.kill()
    process.wait()
    assert not folder.is_claimed([CELL])
    with folder.claimed([CELL]) as mine:
        assert mine


def test_examples_are_kept_as_the_report_reads_them(folder):
    assert not folder.has_examples("africa")
    rgb = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    folder.keep_examples("africa", ["a", "b"], rgb, rgb[..., 0])
    assert folder.has_examples("africa")
    with np.load(folder.path / "examples" / "africa.npz", allow_pickle=False) as arrays:
        assert arrays["chip_ids"].tolist() == ["a", "b"]
        np.testing.assert_array_equal(arrays["rgb"], rgb)
    assert [path.name for path in (folder.path / "examples").iterdir()] == ["africa.npz"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "study.yaml").write_text("")
    with pytest.raises(InputError, match=r"--out .*cannot be written"):
        SweepFolder(tmp_path / "file" / "out").begin(Study(tmp_path / "study.yaml", "", (CELL,)))
