"""Whether converted weights still equal the file they were made from."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcrop.weights.converted import flatten, load_converted
from weights_convert.convert import convert_in_memory


class Row(NamedTuple):
    """A parameter, its largest absolute difference (infinite where it has no partner), and why."""

    parameter: str
    difference: float
    note: str = ""


def verify(source: str | Path, converted: str | Path) -> list[Row]:
    """Compare a checkpoint with its conversion, parameter by parameter.

    Raises InputError where either cannot be read.
    """
    manifest, params = load_converted(converted)
    _, expected = convert_in_memory(Path(source), manifest["family"])
    found = flatten(params)
    return [_compare(name, expected.get(name), found.get(name)) for name in expected | found]


def _compare(name: str, expected: np.ndarray | None, found: np.ndarray | None) -> Row:
    if found is None:
        return Row(name, np.inf, "missing from the converted weights")
    if expected is None:
        return Row(name, np.inf, "not in the source")
    if expected.shape != found.shape:
        return Row(name, np.inf, f"shape {found.shape} instead of {expected.shape}")
    difference = np.abs(expected - found)
    return Row(name, float(np.where(np.isnan(difference), np.inf, difference).max(initial=0)))
