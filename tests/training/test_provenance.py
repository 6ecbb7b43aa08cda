import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import jax
import pytest
import yaml

from jaxcrop.training.provenance import _revision, provenance


def _git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def package(tmp_path):
    """A package in a work tree, committed."""
    folder = tmp_path / "tree" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    _git(folder, "init", "-q")
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", "first")
    return folder


def test_what_a_run_was_started_with(monkeypatch):
    """The command is one to give again, on another machine too."""
    words = ["-m", "jaxcrop.train", "--run-dir", "my runs/a"]
    monkeypatch.setattr(sys, "orig_argv", ["/some/environment/bin/python", *words])
    found = provenance()
    assert shlex.split(found["command"]) == ["python", *words]
    assert found["versions"]["jax"] == jax.__version__
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (found["devices"], found["processes"]) == (2, 1)  # tests/conftest.py
    age = datetime.now(UTC) - datetime.fromisoformat(found["started"])
    assert timedelta(seconds=-1) < age < timedelta(minutes=1)
    assert yaml.safe_load(yaml.safe_dump(found)) == found


def test_revision_and_uncommitted_changes(package):
    head = _git(package, "rev-parse", "HEAD")
    assert _revision(package) == {"revision": head, "uncommitted_changes": False}
    (package / "notes.txt").write_text("untracked")
    assert not _revision(package)["uncommitted_changes"]
    (package / "__init__.py").write_text("x = 1")
    assert _revision(package) == {"revision": head, "uncommitted_changes": True}


def test_an_installation_inside_another_work_tree_has_no_revision(package):
    installed = package.parent / ".venv" / "site-packages" / "jaxcrop"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert _revision(installed) is None


def test_no_revision_without_git_or_work_tree(package, tmp_path, monkeypatch):
    assert _revision(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _revision(package) is None
