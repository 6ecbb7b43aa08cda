"""The documentation says what the commands know, and its pages can be made."""

import ast
import contextlib
import dataclasses
import importlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from jaxcrop.__main__ import VERBS
from jaxcrop.config import PARTS, flag
from jaxcrop.data.reading import find_records
from jaxcrop.data.synthetic import write_region
from jaxcrop.presets import parse_train_config
from jaxcrop.sweeps.study import read_study

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])
TUTORIAL = json.loads((DOCS / "tutorial.ipynb").read_text())

OTHERS = {
    "pip": {"--no-build-isolation"},
    "docs": {"--inplace"},
    "pytest": {"--dist", "--no-loadscope-reorder"},
    "beam": {"--runner", "--direct_num_workers"},
    "tensorflow-datasets": {"--config", "--manual_dir", "--imports"},
    "slurm": {"--nodes", "--gpus-per-task"},
    "gcloud": {"--zone", "--worker", "--command"},
    "tensorboard": {"--logdir"},
}
"""Options of other people's commands that the pages name."""

SUBCOMMANDS = {
    "jaxcrop.data": ("fetch", "cut", "build", "card", "show", "split", "synthetic"),
    "jaxcrop.sweep": ("status",),
    "weights_convert": ("list", "fetch", "convert", "verify", "export"),
}


def fences(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page in one of these languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language in languages]


def options(main, *arguments: str) -> set[str]:
    """The options that a command's --help names."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit):
        main([*arguments, "--help"])
    return set(re.findall(r"--[a-z][a-z0-9-]*", printed.getvalue()))


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """The options of every command, by what follows `python -m`."""
    found = {}
    for module, _ in VERBS.values():
        name = module.removesuffix(".__main__")
        main = importlib.import_module(module).main
        found[name] = options(main)
        for verb in SUBCOMMANDS.get(name, ()):
            found[f"{name} {verb}"] = options(main, verb)
    found["jaxcrop.train"].add("--config")  # read before the others are
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_knows_its_options(page, known):
    script = "\n".join(fences(page, "sh", "bash")).replace("\\\n", " ")
    for line in script.splitlines():
        found = re.search(r"python3? -m ((?:jaxcrop|weights_convert)\S*)( [a-z]+\b)?", line)
        if not found:
            continue
        name = found[1] + (found[2] or "")
        name = name if name in known else found[1]
        words = shlex.split(line[found.start() :].split(" && ")[0].rstrip('"'), comments=True)
        given = {word.partition("=")[0] for word in words if re.match("--[a-z]", word)}
        assert given <= known[name], line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_that_is_named_is_one(page, known):
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]*[a-z0-9]", page.read_text()))
    assert named <= set().union(*known.values(), *OTHERS.values(), {"--help"})


def test_every_setting_of_training_is_explained():
    text = (DOCS / "training.md").read_text() + (DOCS / "clusters.md").read_text()
    names = [field.name for kind in PARTS.values() for field in dataclasses.fields(kind)]
    assert [name for name in (*names, "preset") if f"--{flag(name)}" not in text] == []


def test_settings_in_yaml_are_settings(tmp_path):
    for page in PAGES:
        for number, code in enumerate(fences(page, "yaml")):
            path = tmp_path / f"{page.stem}-{number}.yaml"
            path.write_text(code)
            if "\nparts:" in code:
                assert len(read_study(path).cells) == 44
            else:
                parse_train_config(["--config", str(path)])
    assert (tmp_path / "training-0.yaml").exists()


def resolve(name: str):
    """What a dotted name stands for: a module, or an attribute of one."""
    module, _, attribute = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return getattr(resolve(module), attribute)


@pytest.mark.parametrize("page", [*PAGES, DOCS / "tutorial.ipynb"], ids=lambda page: page.name)
def test_python_names_what_there_is(page):
    cells = [cell["source"] for cell in TUTORIAL["cells"] if cell["cell_type"] == "code"]
    codes = fences(page, "python") if page.suffix == ".md" else map("".join, cells)
    for code in codes:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute):
                if re.fullmatch(r"jaxcrop(\.\w+)+", ast.unparse(node)):
                    resolve(ast.unparse(node))
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    assert hasattr(importlib.import_module(node.module), alias.name)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name
)
def test_local_links_lead_somewhere(page):
    """Those of the other pages Sphinx checks."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" not in target:
            assert (ROOT / target.partition("#")[0]).exists(), target


def test_the_pages_can_be_made(tmp_path):
    """Every link and label of them leads somewhere, every name that is documented exists."""
    pytest.importorskip("sphinx")
    copy = tmp_path / "docs"
    copy.mkdir()
    for path in DOCS.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", copy, copy / "_build"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (made.returncode, made.stderr) == (0, "")
    assert "The class of every pixel" in (copy / "_build" / "python.html").read_text()


@pytest.mark.parametrize(("ends", "queued"), [(0, False), (2, False), (75, True)])
def test_the_slurm_script_queues_what_was_preempted(tmp_path, ends, queued):
    """Run with stand-ins for srun and scontrol."""
    for name, body in (
        ("srun", f'echo "$@" > {tmp_path}/srun.txt; exit {ends}'),
        ("scontrol", f'echo "$@" > {tmp_path}/scontrol.txt'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    done = subprocess.run(["bash", DOCS / "train.sbatch"], env=environment, check=False)
    assert done.returncode == ends
    assert (tmp_path / "scontrol.txt").exists() == queued
    if queued:
        assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n"
    _, _, module, *arguments = (tmp_path / "srun.txt").read_text().split()
    assert module == "jaxcrop.train"
    assert parse_train_config(arguments).device.distributed


def test_a_region_of_ones_own(tmp_path):
    """The files of the page, in a copy of the packages: chips are built, the region is known."""
    for package in ("jaxcrop", "datasets/jaxcrop_datasets", "weights_convert"):
        for path in (ROOT / package).rglob("*"):
            if (
                path.is_file()
                and "__pycache__" not in path.parts
                and "dummy_data" not in path.parts
            ):
                target = tmp_path / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    blocks = re.findall(
        r"^```\{code-block\} \w+\n:caption: (\S+)\n\n(.*?)^```",
        (DOCS / "your-region.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    files = dict(blocks)
    row = files.pop("jaxcrop/regions.py")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "datasets/jaxcrop_datasets/kenya/__init__.py").touch()
    regions = tmp_path / "jaxcrop" / "regions.py"
    before, first, after = regions.read_text().partition('        Region("africa"')
    regions.write_text(before + row + first + after)

    source = tmp_path / "source"
    write_region(source, "africa", chips=3, seed=0)
    for path in (source / "labels").iterdir():  # wheat of South Africa is maize of Kenya
        with rasterio.open(path, "r+") as labels:
            code = labels.read(1)
            labels.write(np.select([code == 7, code > 0], [1, 2]).astype(code.dtype), 1)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": f"{tmp_path}:{tmp_path / 'datasets'}",
                "JAXCROP_DATA_DIR": str(tmp_path / "records"),
                "JAXCROP_CACHE": str(tmp_path / "cache"),
            },
            capture_output=True,
            text=True,
            check=False,
        )

    built = run("jaxcrop.data", "build", "kenya", "--source", "source")
    assert "train: 1 synthetic chips" in built.stdout, built.stderr
    stored = find_records(tmp_path / "records", "kenya").metadata
    assert [row["class"] for row in stored["codes"].values()] == [0, 1, 5, 4, 5]
    counts = np.sum(list(stored["pixels"].values()), axis=0)
    assert (counts[[1, 5]] > 0).all()
    assert not counts[2:5].any()
    begun = run("jaxcrop.train", "--backbone", "satlas", "--region", "kenya")
    assert begun.returncode == 2
    assert "error: missing: the published weights satlas-resnet50-si-ms" in begun.stderr
