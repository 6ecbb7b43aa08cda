"""Fixtures that more than one test file uses, and how JAX runs in the tests."""

import gc
import os
import sys
from pathlib import Path

import pytest

# Tracing makes many objects that live for long: looking through them all again and again takes a
# few hundredths of the tests' time.
gc.set_threshold(100_000, 20, 100)
# Two virtual devices, so that every test of training is one of sharded training.
os.environ.update(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="2")
# Tests run beside each other: the threads of PyTorch and NumPy would wait for each other, busily.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
# Most programs of the tests run once or twice, for less time than they take to be compiled well:
# compiled in haste, a file of whole models takes two thirds to three quarters of the time. XLA's
# older way to compile what it fuses takes two thirds of the newer's.
os.environ["XLA_FLAGS"] = " ".join(
    (
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
        os.environ.get("XLA_FLAGS", ""),  # what is asked for by hand comes last, and holds
    )
)
# Programs compiled by one test need not be compiled again by the next.
os.environ.update(
    JAX_COMPILATION_CACHE_DIR=str(Path(__file__).parents[1] / ".pytest_cache" / "xla"),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
)


_LONG = (
    "test_faults.py", "test_oracle.py", "test_distributed.py", "test_sweep.py", "test_options.py",
    "test_packaging.py", "test_loop.py", "test_tutorial.py", "test_heads.py", "test_api.py",
    "test_train.py", "test_export.py", "test_real_data.py", "test_segmenter.py",
    "test_decoders.py", "test_remat.py", "test_features.py", "test_checkpoints.py", "test_step.py",
)  # fmt: skip


def pytest_collection_modifyitems(items) -> None:
    """Begin with the files that take longest, so that no worker is left alone with one at the end.

    xdist's own order, files of many tests first, would do the opposite: --no-loadscope-reorder.
    """
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.fixture(autouse=True)
def _torch_draws_alike():
    """What PyTorch draws in a test is not for the tests to decide that ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(params=["cpu", "gpu"])
def backend(request, monkeypatch) -> str:
    """What the programs of a test are traced for: a CPU, or an accelerator.

    An accelerator's ways to compute are plain XLA too: a CPU can say whether they are right.
    """
    import jax

    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    jax.clear_caches()  # what was traced for the other
    yield request.param
    jax.clear_caches()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real Sentinel-2 files that lies beside the project where it is developed."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data absent: ../shared/data does not exist beside the project")
    return folder


@pytest.fixture(scope="session")
def synthetic_region(tmp_path_factory) -> Path:
    """A synthetic region of ten small chips, built by the ordinary builder: the data folder."""
    from small_regions import build_small_region

    folder = tmp_path_factory.mktemp("africa")
    build_small_region(folder / "source", folder / "records", "africa", chips=10, seed=7)
    return folder / "records"


@pytest.fixture(scope="session")
def synthetic_records(synthetic_region):
    """The records of `synthetic_region`."""
    from jaxcrop.data.reading import find_records

    return find_records(synthetic_region, "sact")


@pytest.fixture(scope="module")
def small_backbones():
    """Have resnet18, vit-s16 and swin-v2-t stand for tiny ones of their kinds."""
    from small_backbones import small_backbones

    with small_backbones():
        yield
