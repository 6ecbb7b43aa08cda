"""A small made-up sweep, and what is derived from it."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_results import made_up_cells, write_made_up_sweep

SCENARIOS = (("id", 10), ("id", 100), ("id", 900), ("ood", 0), ("ood+id", 100), ("ood+id", 900))


@pytest.fixture(scope="session")
def sweep_folder(tmp_path_factory) -> Path:
    """Three regions, three families, three seeds and one trap."""
    cells = made_up_cells(
        regions=("africa", "europe", "south-america"),
        scenarios=SCENARIOS,
        seeds=3,
        traps=("raw-offset",),
    )
    return _once(tmp_path_factory, "study", lambda path: write_made_up_sweep(path, cells))


@pytest.fixture(scope="session")
def study(sweep_folder):
    """The made-up sweep with everything that is derived from its results."""
    from jaxcrop.reports.study import studied
    from jaxcrop.reports.sweep import read_sweep

    return studied(read_sweep(sweep_folder))


@pytest.fixture(scope="session")
def report(sweep_folder, tmp_path_factory) -> Path:
    """The folder of the report of the made-up sweep."""
    from jaxcrop.reports.write import write_report

    return _once(tmp_path_factory, "report", lambda path: write_report(sweep_folder, path))


def _once(tmp_path_factory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one worker of pytest-xdist makes for all; the others wait for it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / name, root / f"{name}.done"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder
