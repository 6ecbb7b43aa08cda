"""Fixtures that more than one test file uses, and how JAX runs in the tests."""

import os
from pathlib import Path

import pytest

# Two virtual devices, so that every test of training is one of sharded training.
os.environ.update(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="2")
# Programs compiled by one test need not be compiled again by the next.
os.environ.update(
    JAX_COMPILATION_CACHE_DIR=str(Path(__file__).parents[1] / ".pytest_cache" / "xla"),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="2",
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real Sentinel-2 files that lies beside the project where it is developed."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data absent: ../shared/data does not exist beside the project")
    return folder
