"""Runs on a small region, within the process of the test."""

from pathlib import Path

from jaxcrop.config import TrainConfig
from jaxcrop.data.reading import Records
from jaxcrop.training.loop import train
from jaxcrop.training.runs import Run, create_model, start_run
from jaxcrop.weights import band_input


def train_small_run(folder: Path, records: Records, **settings) -> Run:
    """Train with these settings, from random weights, on records as those of africa."""
    config = TrainConfig.of(
        backbone="satlas", weights="random", region="africa", run_dir=folder, **settings
    )
    random = {"family": "satlas", "source": "random"}
    run = start_run(config, {"africa": records}, random, band_input("satlas"))
    train(run, create_model(run))
    return run
