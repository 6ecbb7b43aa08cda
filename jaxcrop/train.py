"""`python -m jaxcrop.train`: train a model of a region's crops, then evaluate it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxcrop.cli import exit_on_input_error
from jaxcrop.config import TrainConfig, parse_train_config
from jaxcrop.errors import InputError
from jaxcrop.regions import REGIONS


def main(argv: Sequence[str] | None = None) -> None:
    """Train and evaluate as the arguments say; `--demo` draws the data and maps a scene as well."""
    with exit_on_input_error():
        config = parse_train_config(argv)
        _check_builder(config.region)
        config = dataclasses.replace(config, run_dir=config.run_dir or _default_run_dir(config))
        if config.demo:
            from jaxcrop import demo  # noqa: PLC0415

            demo.run(config)
        else:
            train_and_evaluate(config)


def train_and_evaluate(config: TrainConfig) -> None:
    """Train in `config.run_dir` and evaluate the best checkpoint on the region's test chips.

    Raises InputError naming everything that is missing, records and weights, before any work.
    """
    # Heavy imports wait until the arguments are known to be right: --help answers at once.
    from jaxcrop import weights  # noqa: PLC0415
    from jaxcrop.data.paths import default_data_dir  # noqa: PLC0415
    from jaxcrop.data.reading import find_records  # noqa: PLC0415
    from jaxcrop.training.loop import train  # noqa: PLC0415
    from jaxcrop.training.runs import create_model, start_run  # noqa: PLC0415
    from jaxcrop.training.scores import score_run  # noqa: PLC0415

    dataset = REGIONS[config.region].dataset
    data_dir = config.data_dir or default_data_dir()
    records = find_records(data_dir, dataset)
    weights_dir = {"published": weights.find(config.backbone), "random": None}.get(
        config.weights, Path(config.weights)
    )
    missing = []
    if records is None:
        missing.append(
            f"the records of {dataset} in {data_dir} (`python -m jaxcrop.data build {dataset} "
            "--source DIR` builds them, or --demo draws a synthetic region)"
        )
    if weights_dir is None and config.weights == "published":
        missing.append(
            f"the published weights of {config.backbone} (`python -m weights_convert fetch "
            f"{weights.DEFAULT[config.backbone]}` gets them, or --weights random does without)"
        )
    if missing:
        raise InputError(f"missing: {' and '.join(missing)}")

    if weights_dir is None:
        backbone = {"family": config.backbone, "source": "random"}
        band_input = weights.band_input(config.backbone, config.bands)
    else:
        manifest, band_input = weights.read_manifest(weights_dir)
        backbone = {name: value for name, value in manifest.items() if name != "dropped"}
    if backbone["family"] != config.backbone:
        raise InputError(
            f"{weights_dir} holds weights of {backbone['family']}, not {config.backbone}: "
            f"give --backbone {backbone['family']}"
        )
    run = start_run(config, records, backbone, band_input)
    model = create_model(band_input, config.seed)
    if weights_dir is not None:
        weights.load_weights(weights.part_of(model, backbone["architecture"]), weights_dir)
    elif config.freeze:
        print("The backbone's random weights stay frozen; --no-freeze trains them.")
    train(run, config, model, records)
    score_run(run, split="test", checkpoint="best", batch_size=config.batch_size)


def _check_builder(region: str) -> None:
    """Raise InputError where the dataset of `region` has no builder yet."""
    from jaxcrop.data.build import dataset_names  # noqa: PLC0415

    known = [name for name, place in REGIONS.items() if place.dataset in dataset_names()]
    if region not in known:
        raise InputError(
            f"--region {region} needs a builder of {REGIONS[region].dataset}, which this version "
            f"lacks: choose {' or '.join(known)}"
        )


def _default_run_dir(config: TrainConfig) -> Path:
    return Path("runs") / f"{config.region}-{config.backbone}{'-demo' if config.demo else ''}"


if __name__ == "__main__":
    main()
