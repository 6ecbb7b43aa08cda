"""`python -m jaxcrop.train`: train a model of a region's crops, then evaluate it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jaxcrop.cli import exit_on_input_error
from jaxcrop.config import TrainConfig
from jaxcrop.errors import InputError
from jaxcrop.presets import parse_train_config
from jaxcrop.regions import REGIONS

if TYPE_CHECKING:
    from jaxcrop.data.reading import Records
    from jaxcrop.training.beginning import Beginning
    from jaxcrop.training.runs import Run

T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> None:
    """Train and evaluate as the arguments say; `--demo` draws the data and maps a scene as well."""
    with exit_on_input_error():
        config = _with_run_dir(parse_train_config(argv))
        if config.demo:
            from jaxcrop import demo  # noqa: PLC0415

            demo.run(config)
        else:
            train_and_evaluate(config)


def train_and_evaluate(config: TrainConfig) -> Path:
    """Train in the run folder of `config`, evaluate on the region's test chips; returns the folder.

    `--ood-mode pretrain` first does the same on the other regions, in RUN/pretraining. Raises
    InputError naming everything that is missing, records and weights, before any work.
    """
    config = _with_run_dir(config)
    train_run(config, _score)
    return config.log.run_dir


def train_run(config: TrainConfig, then: "Callable[[Run], T]") -> "T":
    """Train in the run folder of `config`, and do something with the run while it is held.

    Of `--ood-mode pretrain`, the first run is evaluated. Raises as `train_and_evaluate`.
    """
    from jaxcrop.mesh import prepare_devices  # noqa: PLC0415
    from jaxcrop.training.preemption import preemptible  # noqa: PLC0415

    prepare_devices(config.device)
    with preemptible():
        if config.data.ood_mode == "pretrain":
            first = config.log.run_dir / "pretraining"
            others = {"setting": "ood", "ood_mode": "mix", "budget": None}
            _train(config.replaced(**others, run_dir=first), _score)
            config = config.replaced(weights=str(first))
        return _train(config, then)


def _score(run: "Run") -> None:
    from jaxcrop.training.scores import score_run  # noqa: PLC0415

    config = run.config
    score_run(run, "test", config.scoring.test_checkpoint, batch_size=config.optimizer.batch_size)


def _train(config: TrainConfig, then: "Callable[[Run], T]") -> "T":
    # Heavy imports wait until the arguments are known to be right: --help answers at once.
    from jaxcrop.mesh import (  # noqa: PLC0415
        ending_for_all,
        is_first_process,
        together,
    )
    from jaxcrop.training.loop import train  # noqa: PLC0415
    from jaxcrop.training.runs import create_model, held, start_run  # noqa: PLC0415

    with ExitStack() as stack:
        with together():
            records, beginning = found(config)
            if is_first_process():
                stack.enter_context(held(config.log.run_dir))
            run = start_run(config, records, beginning.backbone, beginning.band_input)
        stack.enter_context(ending_for_all())
        model = create_model(run)
        beginning.fill(model)
        random = config.model.weights == "random"
        if random and config.tuning.tune == "frozen" and is_first_process():
            print("The backbone's random weights stay frozen; --tune full trains them.")
        train(run, model)
        return then(run)


def found(config: TrainConfig) -> "tuple[dict[str, Records], Beginning]":
    """The records of each region that takes part, and the weights to begin with.

    Raises InputError naming all that is missing.
    """
    from jaxcrop.data.paths import default_data_dir  # noqa: PLC0415
    from jaxcrop.data.reading import find_records  # noqa: PLC0415
    from jaxcrop.training.beginning import Beginning  # noqa: PLC0415

    data_dir = config.data.data_dir or default_data_dir()
    variant = config.data.variant
    datasets = {region: REGIONS[region].dataset for region in config.data.regions}
    records = {r: find_records(data_dir, name, variant) for r, name in datasets.items()}
    beginning = Beginning(config.model)
    missing = [
        f"the records of {dataset} in {data_dir}, variant {variant} (`python -m jaxcrop.data build "
        f"{dataset} --source DIR` builds them, or --demo draws a synthetic region)"
        for region, dataset in datasets.items()
        if records[region] is None
    ]
    if missing + beginning.missing:
        raise InputError(f"missing: {' and '.join(missing + beginning.missing)}")
    return records, beginning


def _with_run_dir(config: TrainConfig) -> TrainConfig:
    """The configuration with a run folder: the one it names, or the one that its settings name."""
    if config.log.run_dir is not None:
        return config
    model, data = config.model, config.data
    parts = [data.region, model.backbone, model.architecture, model.decoder]
    if data.setting != "id":
        parts.append(data.setting)
    if data.budget is not None:
        parts.append(str(data.budget))
    return config.replaced(run_dir=Path("runs") / "-".join(parts + ["demo"] * config.demo))


if __name__ == "__main__":
    main()
