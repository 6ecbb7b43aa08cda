"""Where a run comes from: command, revision, versions, machine."""

import os
import platform
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

_PACKAGES = ("jaxcrop", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
_GIT_SECONDS = 5


def provenance() -> dict[str, Any]:
    """What a run was started with, as plain values for YAML.

    `git` holds the revision of the source tree and whether tracked files differ from it; it is None
    where jaxcrop is installed from a wheel. Nothing here raises for want of git or a package.
    """
    return {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "git": _revision(Path(__file__).resolve().parent),
        "versions": {
            "python": platform.python_version(),
            **{package: _version(package) for package in _PACKAGES},
        },
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision(folder: Path) -> dict[str, Any] | None:
    """The revision that `folder` is checked out at, or None where git does not track it."""
    # An environment inside somebody's work tree is not that work tree: ask for tracked files.
    if not _git(folder, "ls-files", "."):
        return None
    revision = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if revision is None or changes is None:
        return None
    return {"revision": revision, "uncommitted_changes": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    # A hook's or alias's GIT_DIR would speak of another tree; the index is not ours to refresh.
    environment = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE")}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
