"""Writing a file whole or not at all, what cannot be written, and what one process does alone."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from jaxcrop.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to, renamed to it when the block ends well."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(what: Path | str) -> Iterator[None]:
    """Have the block's OSError say that `what`, a folder, cannot be written: as an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{what} cannot be written ({error.strerror or error}): free its disk, or choose "
            "another folder"
        ) from error


def json_lines(path: Path) -> list[dict[str, Any]]:
    """What the lines of a log say, up to the last that is complete.

    A process that is still writing, or was killed at it, leaves a last line without its end. Raises
    OSError where the log cannot be read, and InputError where a line is damaged.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    values = []
    for number, line in enumerate(lines, start=1):
        if line.endswith(b"\n"):
            try:
                values.append(json.loads(line))
            except ValueError as error:
                raise InputError(
                    f"line {number} of {path} is damaged: take it out of the file"
                ) from error
    return values


@contextmanager
def locked(path: Path, busy: str) -> Iterator[IO]:
    """Hold the lock file `path` against every other process until the block ends; yields it.

    The lock goes with the process, however it ends. Raises InputError, whose sentence is `busy`,
    where another process has it.
    """
    with path.open("a") as lock:  # who has it may have written something
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(busy) from error
        lock.truncate(0)
        yield lock
