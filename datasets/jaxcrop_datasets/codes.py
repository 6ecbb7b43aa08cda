"""Code tables: what each raw code of a label map is called, and which class it becomes."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxcrop.crops import CLASS_NAMES, CROPS, IGNORE
from jaxcrop.errors import InputError

_UNKNOWN = 255
"""Stands for the class of a code that the table does not have."""


class Codes(NamedTuple):
    """The raw codes of a dataset, ascending, with their names and the classes that they become.

    Masks of them have the type `dtype`, and `outside` where no label map lies.
    """

    codes: NDArray[np.uint32]
    names: tuple[str, ...]
    classes: NDArray[np.uint8]
    dtype: np.dtype
    outside: int

    @property
    def stored_dtype(self) -> np.dtype:
        """The type of masks in records: TensorFlow decodes no uint32."""
        return self.dtype if self.dtype == np.uint8 else np.dtype(np.int64)

    def harmonise(self, raw: NDArray[np.unsignedinteger], path: Path) -> NDArray[np.uint8]:
        """The classes of raw codes, of the same shape; IGNORE where no label map lies.

        Raises InputError, naming the label map `path`, for a code that the table does not have.
        """
        if self.dtype == np.uint8:
            of_code = np.full(256, _UNKNOWN, np.uint8)
            of_code[self.codes] = self.classes
            of_code[self.outside] = IGNORE
            classes = of_code[raw]
        else:
            at = np.minimum(np.searchsorted(self.codes, raw), len(self.codes) - 1)
            classes = np.where(self.codes[at] == raw, self.classes[at], _UNKNOWN)
            classes[raw == self.outside] = IGNORE
        strange = classes == _UNKNOWN
        if strange.any():
            known = ", ".join(map(str, self.codes[:30])) + ", …" * (len(self.codes) > 30)
            raise InputError(
                f"{path} holds the unknown code {raw[strange][0]}: the codes are {known}"
            )
        return classes

    def metadata(self) -> dict[str, dict]:
        """The table as JSON holds it: code → name and class."""
        return {
            str(code): {"name": name, "class": int(crop)}
            for code, name, crop in zip(self.codes, self.names, self.classes, strict=True)
        }


def from_mapping(table: Mapping[int, tuple[str, int]]) -> Codes:
    """A table written in code: raw code → (name, class). Bytes hold the codes below 255."""
    codes = sorted(table)
    dtype = np.dtype(np.uint8 if codes[-1] < 255 else np.uint32)
    return Codes(
        np.array(codes, np.uint32),
        tuple(table[code][0] for code in codes),
        np.array([table[code][1] for code in codes], np.uint8),
        dtype,
        int(np.iinfo(dtype).max),
    )


def of_classes() -> Codes:
    """The table of label maps that are harmonised already."""
    return from_mapping({number: (crop.name, number) for number, crop in enumerate(CROPS)})


def harmonisations(path: Path) -> tuple[str, ...]:
    """The harmonisations that a codes.csv offers: its columns after code and name."""
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(next(csv.reader(file))[2:])


def read_codes(path: Path, harmonisation: str) -> Codes:
    """The table in a codes.csv, with the classes that its column `harmonisation` names.

    Raises InputError where there is no such column.
    """
    offered = harmonisations(path)
    if harmonisation not in offered:
        raise InputError(
            f"{path} has no harmonisation {harmonisation}: choose one of {', '.join(offered)}"
        )
    with path.open(newline="", encoding="utf-8") as file:
        return from_mapping(
            {
                int(row["code"]): (row["name"], CLASS_NAMES.index(row[harmonisation]))
                for row in csv.DictReader(file)
            }
        )
