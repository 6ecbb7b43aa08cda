"""The wheel, in an empty environment away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_packages_and_their_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"jaxcrop", "weights_convert", "jaxcrop_datasets"}
    for builder in (ROOT / "datasets" / "jaxcrop_datasets").glob("*/*_dataset_builder.py"):
        for path in builder.parent.rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                assert f"jaxcrop_datasets/{path.relative_to(builder.parents[1])}" in names


def test_the_wheel_trains_in_an_empty_environment(wheel, tmp_path):
    """Its declared dependencies suffice, TensorFlow and PyTorch not among them."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean["JAX_NUM_CPU_DEVICES"] = "1"

    def run(*arguments) -> str:
        result = subprocess.run(
            [python, *arguments],
            cwd=tmp_path,
            env=clean,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    run("-m", "pip", "install", "-q", "--no-compile", "-c", ROOT / "constraints.txt", wheel)
    absent = (
        "import importlib.util as u; print(*map(u.find_spec, ['tensorflow', 'torch', 'datasets']))"
    )
    assert run("-c", absent).split() == ["None"] * 3
    out = run(
        *("-m", "jaxcrop.train", "--backbone", "satlas", "--region", "africa", "--demo"),
        *("--architecture", "resnet18", "--decoder", "linear", "--steps", "2", "--batch-size", "1"),
        *("--run-dir", "demo"),
    )
    assert "africa: satlas ResNet-18 (random weights), linear head, synthetic sact 2.0.0" in out
    for name in (
        "map.tif",
        "map.png",
        "config.yaml",
        "metrics.jsonl",
        "evaluation/test/confusion.png",
        "evaluation/test/reliability.png",
    ):
        assert (tmp_path / "demo" / name).stat().st_size > 0


def test_the_checkout_does_not_shadow_hugging_face_datasets(tmp_path):
    """`import datasets` from the root of the checkout finds the package that is installed."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("WHOSE = 'Hugging Face'")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import datasets; print(datasets.WHOSE)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "Hugging Face"
