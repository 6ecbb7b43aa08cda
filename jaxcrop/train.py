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

    data_dir = config.data_dir or default_data_dir()
    datasets = {region: REGIONS[region].dataset for region in config.regions}
    records = {r: find_records(data_dir, name, config.variant) for r, name in datasets.items()}
    name = config.weights
    if name == "published":
        name = weights.default_weights(config.backbone, config.architecture).name
    published = weights.CATALOGUE.get(name)
    if published is not None:
        _check_fit(config, name, published.family, published.architecture)
        weights_dir = weights.find(name)
    else:
        weights_dir = None if name == "random" else Path(name)
    missing = [
        f"the records of {dataset} in {data_dir}, variant {config.variant} (`python -m "
        f"jaxcrop.data build {dataset} --source DIR` builds them, or --demo draws a synthetic "
        "region)"
        for region, dataset in datasets.items()
        if records[region] is None
    ]
    if published is not None and weights_dir is None:
        missing.append(
            f"the published weights {name} (`python -m weights_convert fetch {name}` gets them, or "
            "--weights random does without)"
        )
    if missing:
        raise InputError(f"missing: {' and '.join(missing)}")

    if weights_dir is None:
        backbone = {"family": config.backbone, "source": "random"}
        band_input = weights.band_input(config.backbone, config.bands)
    else:
        manifest, band_input = weights.read_manifest(weights_dir)
        _check_fit(config, str(weights_dir), manifest["family"], manifest["architecture"])
        backbone = {key: value for key, value in manifest.items() if key != "dropped"}
    run = start_run(config, records, backbone, band_input)
    model = create_model(run)
    if weights_dir is not None:
        weights.load_weights(model, weights_dir)
    elif config.freeze:
        print("The backbone's random weights stay frozen; --no-freeze trains them.")
    train(run, config, model)
    score_run(run, split="test", checkpoint="best", batch_size=config.batch_size)


def _check_fit(config: TrainConfig, weights: str, family: str, architecture: str) -> None:
    """Raise InputError where `weights` are of another family or architecture than `config` says."""
    for flag, wanted, found in (
        ("--backbone", config.backbone, family),
        ("--architecture", config.architecture, architecture),
    ):
        if found != wanted:
            raise InputError(
                f"{weights} holds weights of {found}, not {wanted}: give {flag} {found}, or other "
                "--weights"
            )


def _default_run_dir(config: TrainConfig) -> Path:
    parts = [config.region, config.backbone, config.architecture, config.decoder]
    if config.setting != "id":
        parts.append(config.setting)
    if config.budget is not None:
        parts.append(str(config.budget))
    return Path("runs") / "-".join(parts + ["demo"] * config.demo)


if __name__ == "__main__":
    main()
