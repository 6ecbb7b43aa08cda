"""`python -m jaxcrop.train --demo`: the whole path on a synthetic region, chips to crop map."""

import time

from jaxcrop.config import TrainConfig
from jaxcrop.data.build import build
from jaxcrop.data.landscapes import LANDSCAPES
from jaxcrop.data.reading import find_records
from jaxcrop.data.synthetic import write_region, write_scene
from jaxcrop.predict import PredictConfig, predict
from jaxcrop.regions import REGIONS
from jaxcrop.train import train_and_evaluate

CHIPS = 64
SCENE_SIZE = (512, 768)
"""Rows and columns of the held-out scene."""


def run(config: TrainConfig) -> None:
    """Draw the region, build its records, train, evaluate, and map a held-out scene.

    Everything lies in `config.log.run_dir`; what a run that was broken off has drawn is used again.
    """
    began = time.monotonic()
    folder = config.log.run_dir / "synthetic"
    dataset = REGIONS[config.data.region].dataset
    if not (folder / "chips").is_dir():
        print(f"drawing {CHIPS} chips of the synthetic region {config.data.region}", flush=True)
        write_region(folder, config.data.region, CHIPS, config.optimizer.seed)
    if find_records(folder / "records", dataset) is None:
        build(dataset, source=folder, data_dir=folder / "records")
    if not (folder / "scene.tif").is_file():
        write_scene(folder, config.data.region, config.optimizer.seed, *SCENE_SIZE)

    train_and_evaluate(config.replaced(data_dir=folder / "records"))
    crop_map = config.log.run_dir / "map.tif"
    picture = config.log.run_dir / "map.png"
    scene, truth = folder / "scene.tif", folder / "truth.tif"
    # The records are without the offset of processing baseline 04.00; a scene comes with it.
    offset = LANDSCAPES[config.data.region].offset
    predict(
        PredictConfig(
            config.log.run_dir, scene, crop_map, picture=picture, truth=truth, offset=offset
        )
    )

    minutes = (time.monotonic() - began) / 60
    print(f"\nThe demo took {minutes:.1f} minutes. All of its data is synthetic.")
    for what, path in {
        "chips and labels": folder / "chips",
        "records": folder / "records" / dataset,
        "settings": config.log.run_dir / "config.yaml",
        "training log": config.log.run_dir / "metrics.jsonl",
        "scores": config.log.run_dir / "evaluation" / "test",
        "scene held out": scene,
        "crop map": crop_map,
        "picture of both": picture,
    }.items():
        print(f"  {what:<17} {path}")
