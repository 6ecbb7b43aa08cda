"""Lists of chips as text files, one chip a line: ours, and those that the paper published."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from jaxcrop.errors import InputError
from jaxcrop.files import replacing

_PAPERS = re.compile(r"sentinel2_(.+)_subsampled_(10|100|100_train|900|test)\.csv")
_HEADER = "Test"
"""The first line of every list of the October 2024 release, whatever it lists."""


def find_lists(known: Set[str], folder: Path, train: str) -> dict[str, Path]:
    """The list of each split that `folder` holds: ours, or the paper's with `train` chips to train.

    Of several sets of the paper's that is taken which tests most of the chips `known`. Raises
    InputError where there is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the one that holds the lists")
    ours = {name: folder / f"{name}.csv" for name in ("train", "validation", "test")}
    if ours["train"].is_file() and ours["test"].is_file():
        return {name: path for name, path in ours.items() if path.is_file()}
    sets: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _PAPERS.fullmatch(path.name)
        if match:
            sets.setdefault(match[1], {})[match[2].removesuffix("_train")] = path
    complete = {name: lists for name, lists in sets.items() if {train, "test"} <= lists.keys()}
    if not complete:
        raise InputError(
            f"{folder} holds neither train.csv and test.csv nor "
            f"sentinel2_<set>_subsampled_{train}.csv and _test.csv: put the lists there"
        )
    best = max(complete, key=lambda name: len(known.intersection(read_list(sets[name]["test"]))))
    return {"train": sets[best][train], "test": sets[best]["test"]}


def read_list(path: Path) -> tuple[str, ...]:
    """Chip ids of a list: header or none, any line ends, names of files or of chips.

    Raises InputError where the file is no text.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as text: give a list of one chip a line"
        ) from error
    names = lines[1:] if lines[:1] == [_HEADER] else lines
    return tuple(dict.fromkeys(name.removesuffix(".tif") for name in names if name))


def write_lists(partition: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Write {split}.csv, one chip id a line, and splits.json with number and SHA-256 of each.

    Raises InputError where the folder cannot be written.
    """
    contents = {
        f"{name}.csv": "".join(f"{chip_id}\n" for chip_id in ids).encode()
        for name, ids in partition.items()
    }
    summary = {
        name: {"chips": content.count(b"\n"), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    contents["splits.json"] = f"{json.dumps(summary, indent=2)}\n".encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with replacing(folder / name) as draft:
                draft.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"cannot write to {folder} ({error.strerror}): choose another folder"
        ) from error
