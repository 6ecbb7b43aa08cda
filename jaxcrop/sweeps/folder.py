"""The folder of a sweep: what is done, what failed, who works on what."""

import json
import os
import shutil
import socket
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxcrop.errors import InputError
from jaxcrop.files import locked, replacing
from jaxcrop.sweeps.cells import Cell, CellResult, read_result, write_result
from jaxcrop.sweeps.study import Study


@dataclass(frozen=True)
class SweepFolder:
    """Results, failures, claims and runs below one folder, which several machines may share.

    A cell is done when its result is there, whole. Its claim is a lock on a file, which goes with
    the process that holds it, however that ends.
    """

    path: Path

    def begin(self, study: Study) -> None:
        """Make the folder, and keep a copy of the study file.

        Raises InputError where it cannot be written.
        """
        try:
            for name in ("results", "failures", "claims", "runs", "examples"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            with (
                suppress(InputError),  # another process writes the same
                locked(self.path / "claims" / "study.lock", "busy"),
                replacing(self.path / "study.yaml") as draft,
            ):
                shutil.copyfile(study.path, draft)
        except OSError as error:
            raise InputError(
                f"--out {self.path} cannot be written ({error.strerror}): choose another folder"
            ) from error

    def run_dir(self, cell: Cell) -> Path:
        """The run folder of a cell that is trained."""
        return self.path / "runs" / cell.key

    def is_done(self, cell: Cell) -> bool:
        """Whether the result of a cell is there."""
        return (self.path / "results" / cell.key / "result.json").is_file()

    def has_failed(self, cell: Cell) -> bool:
        """Whether a cell is in quarantine."""
        return self._failure(cell).is_file()

    def open_cells(self, cells: Iterable[Cell]) -> list[Cell]:
        """The cells that are neither done nor in quarantine."""
        return [cell for cell in cells if not (self.is_done(cell) or self.has_failed(cell))]

    def result(self, cell: Cell) -> CellResult:
        """The result of a cell that is done. Raises InputError where it is damaged."""
        return read_result(self.path / "results" / cell.key)

    def keep(self, result: CellResult) -> None:
        """Write a result, whole or not at all; what its run needed to go on is removed."""
        write_result(result, self.path / "results")
        shutil.rmtree(self.run_dir(result.cell) / "checkpoints", ignore_errors=True)

    def quarantine(self, cell: Cell, error: BaseException) -> None:
        """Set a failing cell aside with its traceback: it is left out until `release`."""
        said = "".join(traceback.format_exception(error))
        if isinstance(error, InputError):
            said = f"{error}\n"
        with replacing(self._failure(cell)) as draft:
            draft.write_text(f"cell: {cell}\n{said}")

    def release(self, cells: Iterable[Cell]) -> None:
        """Take cells out of quarantine, to be tried again."""
        for cell in cells:
            self._failure(cell).unlink(missing_ok=True)

    @contextmanager
    def claimed(self, cells: Sequence[Cell]) -> Iterator[bool]:
        """Hold a piece of work against every other process; yields whether it was free."""
        with ExitStack() as held:
            try:
                lock = held.enter_context(locked(self._claim(cells), "busy"))
            except InputError:
                yield False
                return
            about = {
                "host": socket.gethostname(),
                "process": os.getpid(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "cells": [str(cell) for cell in cells],
            }
            lock.write(json.dumps(about))
            lock.flush()
            yield True

    def is_claimed(self, cells: Sequence[Cell]) -> bool:
        """Whether some process works on this now."""
        try:
            with locked(self._claim(cells), "busy"):
                return False
        except InputError:
            return True

    def keep_examples(
        self,
        region: str,
        chip_ids: Sequence[str],
        rgb: UInt8[np.ndarray, "n h w 3"],
        label: UInt8[np.ndarray, "n h w"],
    ) -> None:
        """Keep the first test chips of a region, in true colour, with their labels."""
        lock = self.path / "claims" / f"examples-{region}.lock"
        with (
            suppress(InputError),  # another process writes the same
            locked(lock, "busy"),
            replacing(self._examples(region)) as draft,
            draft.open("wb") as file,
        ):
            names = np.array(chip_ids, np.str_)
            np.savez_compressed(file, chip_ids=names, rgb=rgb, label=label)

    def has_examples(self, region: str) -> bool:
        """Whether the example chips of a region are kept."""
        return self._examples(region).is_file()

    def _examples(self, region: str) -> Path:
        return self.path / "examples" / f"{region}.npz"

    def _failure(self, cell: Cell) -> Path:
        return self.path / "failures" / f"{cell.key}.txt"

    def _claim(self, cells: Sequence[Cell]) -> Path:
        return self.path / "claims" / f"{min(cell.key for cell in cells)}.lock"
