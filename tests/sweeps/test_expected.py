"""Expected times against sums by hand."""

import dataclasses

import pytest
from test_cells import CELL, result_of

from jaxcrop.config import TrainConfig
from jaxcrop.sweeps.expected import expected_seconds

CHIPS = 90


def _expected(method: str, **settings) -> float:
    """Seconds of a cell beside a finished one that took 15 s and one for a giga-multiplication."""
    common = {"backbone": "satlas", "region": "africa", "epochs": 10}
    measured = dataclasses.replace(CELL, seed=1)
    cell = dataclasses.replace(CELL, method=method, settings=settings)
    configs = {
        measured.key: TrainConfig.of(**common, augmentation="fresh"),
        cell.key: TrainConfig.of(**common, **settings),
    }
    took = 15 + 10 * CHIPS * (5.7 + 3 * 4.0)
    finished = [dataclasses.replace(result_of(measured), seconds=took)]
    return expected_seconds([measured, cell], configs, lambda config: CHIPS, finished)[cell.key]


@pytest.mark.parametrize(
    ("method", "settings", "by_backbone"),
    [
        ("train", {"augmentation": "fresh"}, 10 * 5.7),
        ("train", {"augmentation": "fresh", "tune": "full"}, 10 * 3 * 5.7),
        ("train", {"augmentation": "none"}, 5.7),
        ("train", {"augmentation": "views", "views": 3}, 3 * 5.7),
        ("train", {"augmentation": "views", "views": 3, "keep_maps": "off"}, 10 * 5.7),
        ("heads", {"augmentation": "views", "views": 3, "keep_maps": "off"}, 3 * 5.7),
    ],
)
def test_a_backbone_computes_kept_maps_once(method, settings, by_backbone):
    found = _expected(method, **settings)
    assert found == pytest.approx(15 + CHIPS * (by_backbone + 10 * 3 * 4.0))
