"""The notebook's cells, one after the other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import rasterio

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


def test_the_tutorial_runs(tmp_path):
    cells = [
        "".join(cell["source"])
        for cell in json.loads(TUTORIAL.read_text())["cells"]
        if cell["cell_type"] == "code"
    ]
    after = "print('right:', (classes == labels)[labels > 0].mean())"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*cells, after])],
        cwd=tmp_path,
        # A laptop's; and many steps are worth a program that is compiled well.
        env={**os.environ, "MPLBACKEND": "agg", "JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # A majority of the labelled pixels is "other": a model that learnt nothing is right in 62 %.
    assert float(done.stdout.rpartition("right: ")[2]) > 0.7
    with rasterio.open(tmp_path / "jaxcrop-tutorial" / "map.tif") as crop_map:
        assert set(crop_map.read(1).ravel()) == {4, 5}
