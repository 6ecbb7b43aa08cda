"""Whether converted weights still equal the file they were made from."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcrop.weights.converted import load_converted
from weights_convert.convert import plan


class Row(NamedTuple):
    """A parameter, its largest absolute difference (infinite where it has no partner), and why."""

    parameter: str
    difference: float
    note: str = ""


def verify(source: str | Path, converted: str | Path) -> list[Row]:
    """Compare a checkpoint with its conversion, parameter by parameter.

    Raises InputError where either cannot be read.
    """
    manifest, found = load_converted(converted)
    conversion = plan(Path(source), manifest["like"])
    rows = []
    for name in conversion.tensors | found:
        expected = conversion.float32(name) if name in conversion.tensors else None
        rows.append(_compare(name, expected, found.get(name)))
    return rows


def _compare(name: str, expected: np.ndarray | None, found: np.ndarray | None) -> Row:
    if found is None:
        return Row(name, np.inf, "missing from the converted weights")
    if expected is None:
        return Row(name, np.inf, "not in the source")
    if expected.shape != found.shape:
        return Row(name, np.inf, f"shape {found.shape} instead of {expected.shape}")
    difference = np.abs(expected - found)
    return Row(name, float(np.where(np.isnan(difference), np.inf, difference).max(initial=0)))
