"""Shards of records: made one by one, kept until all are there, taken up again after a stop."""

import csv
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.file_adapters import FileFormat
from tensorflow_datasets.core.writer import ExampleWriter, ShardWriter
from tensorflow_datasets.proto import tf_example_pb2

from jaxcrop.crops import NUM_CLASSES
from jaxcrop.errors import InputError
from jaxcrop.files import locked, replacing
from jaxcrop_datasets.chips import ChipFiles, ChipReader, Problem

SHARD_CHIPS = 64
"""Chips in a shard, about 110 MB: what an interrupted build may have to do again."""


@dataclass(frozen=True)
class Tally:
    """What a finished shard holds, and what was left out of it."""

    chips: int
    pixels: tuple[int, ...]  # of each class
    codes: tuple[int, ...]  # that occur, where they fit a byte
    synthetic: bool
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class PartialBuild:
    """The folder that keeps the finished shards of a build until all are there."""

    folder: Path

    @contextmanager
    def held(self, fingerprint: str) -> Iterator[IO]:
        """Make the folder ours, of this build and this process alone; yields the lock.

        Shards of another `fingerprint`, and so of other files or settings, are removed; what a
        killed process left half-written, too. Raises InputError where another process builds.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        busy = f"another process builds in {self.folder}: wait until it has finished"
        with locked(self.folder / "lock", busy) as lock:
            stamp = self.folder / "fingerprint"
            if not stamp.is_file() or stamp.read_text() != fingerprint:
                for path in self.folder.iterdir():
                    if path.is_dir():
                        shutil.rmtree(path)
                    elif path.name != "lock":
                        path.unlink()
                with replacing(stamp) as draft:
                    draft.write_text(fingerprint)
            yield lock

    def tally(self, shard: str) -> Tally | None:
        """What the shard holds, or None where it is not finished."""
        if not (self.folder / shard).is_file():
            return None
        stored = json.loads((self.folder / f"{shard}.json").read_text())
        return Tally(
            stored["chips"],
            tuple(stored["pixels"]),
            tuple(stored["codes"]),
            stored["synthetic"],
            tuple((file, reason) for file, reason in stored["problems"]),
        )

    def note(self, shard: str, tally: Tally) -> None:
        """Write down what the shard will hold, before it is finished."""
        with replacing(self.folder / f"{shard}.json") as draft:
            draft.write_text(json.dumps(tally.__dict__))

    def remove(self) -> None:
        """Remove the folder and all it keeps."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class ShardChips:
    """The chips of one shard; called, it yields (chip id, record) of each that can be read.

    This is what TFDS runs, here or in a worker. Of a shard that is finished it yields as many ids
    and no records: TFDS counts them and the writer does not look.
    """

    shard: str
    chips: tuple[ChipFiles, ...]
    reader: ChipReader
    partial: PartialBuild

    def __call__(self) -> Iterator[tuple[str, dict | None]]:
        finished = self.partial.tally(self.shard)
        if finished is not None:
            yield from ((f"{self.shard}-{chip}", None) for chip in range(finished.chips))
            return
        count, synthetic = 0, False
        pixels, codes = np.zeros(NUM_CLASSES, np.int64), np.zeros(256, np.int64)
        problems = []
        for chip in self.chips:
            try:
                record, drawn = self.reader.read(chip)
            except InputError as error:
                problems.append((str(chip.paths[0]), str(error)))
                continue
            count += 1
            synthetic |= drawn
            pixels += np.bincount(record["label"].ravel(), minlength=NUM_CLASSES)
            if record["code"].dtype == np.uint8:
                codes += np.bincount(record["code"].ravel(), minlength=256)
            yield chip.chip_id, record
        codes[self.reader.codes.outside % 256] = 0
        seen = tuple(np.flatnonzero(codes).tolist())
        self.partial.note(
            self.shard, Tally(count, tuple(pixels.tolist()), seen, synthetic, tuple(problems))
        )


class KeepingWriter(ExampleWriter):
    """Writes a shard to the partial build, whole or not at all, unless it is there already."""

    def __init__(self, file_format: FileFormat, partial: PartialBuild):
        super().__init__(file_format)
        self._partial = partial

    def write(self, path: os.PathLike, examples: Iterable[tuple[str, bytes]]) -> None:
        shard = self._partial.folder / Path(path).name
        if shard.is_file():
            return
        # A folder of its own: Beam may have a second worker do what a slow one is at.
        with tempfile.TemporaryDirectory(dir=self._partial.folder) as own:
            draft = Path(own) / shard.name
            examples = ((key, _in_one_order(record)) for key, record in examples)
            if self.file_format == FileFormat.ARRAY_RECORD:
                _write_array_record(draft, examples)
            else:
                super().write(draft, examples)
            os.replace(draft, shard)


class LinkingWriter(KeepingWriter):
    """Writes a shard to the partial build, and links it where TFDS wants it."""

    def write(self, path: os.PathLike, examples: Iterable[tuple[str, bytes]]) -> None:
        super().write(path, examples)
        with suppress(FileExistsError):
            os.link(self._partial.folder / Path(path).name, path)


def _in_one_order(record: bytes) -> bytes:
    """The same record with its features in order: protobuf's own differs between processes."""
    return tf_example_pb2.Example.FromString(record).SerializeToString(deterministic=True)


def _write_array_record(path: Path, examples: Iterable[tuple[str, bytes]]) -> None:
    """Write records one by one and as they are.

    Compressing them, TFDS's way, saves a quarter of the space and takes 5 times as long to write
    and 2.5 times to read.
    """
    records = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for _, record in examples:
        records.write(record)
    records.close()


def work_ahead(
    shards: Sequence[ShardChips], features, file_format: FileFormat, lock: IO, workers: int
) -> None:
    """Make the shards in `workers` processes of their own.

    What a worker leaves undone, whatever befell it, the caller finds undone. Workers end with the
    caller, and hold its `lock` until they do. (Threads would be slower than one: most of the work
    holds Python's lock.)
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", "from jaxcrop_datasets.building import work; work()"],
            stdin=subprocess.PIPE,
            pass_fds=[lock.fileno()],
        )
        for _ in range(workers)
    ]
    for worker, process in enumerate(processes):
        with suppress(BrokenPipeError):
            pickle.dump((shards[worker::workers], features, file_format), process.stdin)
            process.stdin.flush()
    for process in processes:
        process.wait()
        with suppress(BrokenPipeError):
            process.stdin.close()


def work() -> None:
    """What a worker does: read its shards from the caller, make them, and end when it ends."""
    shards, features, file_format = pickle.load(sys.stdin.buffer)

    def end_with_the_caller() -> None:
        os.read(sys.stdin.fileno(), 1)  # returns when the caller is gone: it writes no more
        os._exit(1)

    Thread(target=end_with_the_caller, daemon=True).start()
    serializer = ExampleSerializer(features.get_serialized_info())
    for shard in shards:
        keeping = KeepingWriter(file_format, shard.partial)
        ShardWriter(features, serializer, keeping).write(shard(), Path(shard.shard))


def fingerprint(settings: Sequence[str], paths: Iterable[Path]) -> str:
    """A hash of a build's settings and of names, sizes and times of the files that it reads."""
    digest = hashlib.sha256("\n".join(settings).encode())
    for path in paths:
        status = path.stat()
        digest.update(f"\n{path}\t{status.st_size}\t{status.st_mtime_ns}".encode())
    return digest.hexdigest()


def refusal(problems: Sequence[Problem]) -> InputError:
    """The error of a build that stops at bad files: one sentence each, twenty of them at most."""
    if len(problems) == 1:
        return InputError(problems[0][1])
    listed = "\n".join(f"  {reason}" for _, reason in problems[:20])
    more = f"\n  … and {len(problems) - 20} more" if len(problems) > 20 else ""
    return InputError(
        f"{len(problems)} chips cannot be built (--on-error skip builds the others):\n"
        f"{listed}{more}"
    )


def write_report(path: Path, problems: Sequence[Problem]) -> None:
    """Write what was left out as CSV: file, reason."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "reason"))
        rows.writerows(problems)
