"""The whole path on the real files beside the project: build, train, score, map."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import rasterio

SCRIPT = Path(__file__).parents[1] / "experiments" / "real" / "train_and_map.py"


@pytest.mark.parametrize(
    ("dataset", "folder"), [("up_india", "up_india"), ("pastis", "pastis_24px")]
)
def test_real_pixels_train_and_map(shared_data, small_backbones, tmp_path, dataset, folder):
    script = runpy.run_path(str(SCRIPT))
    given = shared_data / folder
    script["main"](script["Arguments"](dataset, given, tmp_path, 2, "resnet18"))
    scores = json.loads((tmp_path / "run/evaluation/test/metrics.json").read_text())
    assert scores["synthetic"] is False
    assert 0 <= scores["model"]["overall_accuracy"] <= 1
    for scene in given.glob("scene*.tif"):
        with rasterio.open(scene) as seen, rasterio.open(tmp_path / "map.tif") as made:
            assert (made.crs, made.transform, made.shape) == (seen.crs, seen.transform, seen.shape)
            assert set(np.unique(made.read(1))) <= {4, 5}  # wheat and mustard, nothing unlabelled
        assert (tmp_path / "map.png").is_file()
