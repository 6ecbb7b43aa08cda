"""What is known of the figures of arXiv 2409.09451."""

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from jaxcrop.regions import REGIONS

EXTRA_REGION = next(name for name, region in REGIONS.items() if not region.in_paper)
"""The sixth region, which version 1 alone has."""


class Known(NamedTuple):
    """A figure of the paper, as a share; `note` says why it is doubtful where it is."""

    version: str
    value: float
    doubtful: bool
    source: str
    note: str


@cache
def known() -> dict[tuple[str, str, str, int], tuple[Known, ...]]:
    """The figures by (dataset, metric, setting, budget), from `paper.csv`; one for each version."""
    found: dict[tuple[str, str, str, int], tuple[Known, ...]] = {}
    with files("jaxcrop.reports").joinpath("paper.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = row["dataset"], row["metric"], row["setting"], int(row["budget"])
            figure = Known(
                row["version"],
                float(row["value"]) / 100,
                row["doubtful"] == "1",
                row["source"],
                row["note"],
            )
            found[key] = (*found.get(key, ()), figure)
    return found


def figures(region: str, metric: str, setting: str, budget: int | None) -> tuple[Known, ...]:
    """The paper's figures for a region's metric, one for each version that has it."""
    if region not in REGIONS:
        return ()
    return known().get((REGIONS[region].dataset, metric, setting, budget), ())
