"""Fixtures that more than one test file uses."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real Sentinel-2 files that lies beside the project where it is developed."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data absent: ../shared/data does not exist beside the project")
    return folder
