"""A run folder: what it was trained from, kept in `config.yaml`, and how to open it again."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Array, UInt16

from jaxcrop.compiling import compiled
from jaxcrop.config import ARCHITECTURE_TITLES, DECODER_TITLES, TrainConfig, unknown_words
from jaxcrop.crops import NUM_CLASSES
from jaxcrop.data.augment import normalise
from jaxcrop.data.bands import BandInput
from jaxcrop.data.experiment import Experiment, plan
from jaxcrop.data.reading import Records, open_records
from jaxcrop.errors import InputError
from jaxcrop.files import locked, replacing, writing
from jaxcrop.mesh import is_first_process
from jaxcrop.models.segmenter import Segmenter, abstract_segmenter, random_segmenter
from jaxcrop.training.checkpoints import Checkpoints, Which
from jaxcrop.training.network import Network, Values, values_of
from jaxcrop.training.provenance import provenance
from jaxcrop.training.step import restrict

_FREE = (
    "steps",
    "epochs",
    "test_checkpoint",
    "trackers",
    "profile",
    "preset",
    "remat",
    "device_cache",
    "workers",
    "distributed",
    "coordinator",
    "num_processes",
    "process_id",
)
"""Settings that may change when a run is resumed: they leave what a step does as it is."""

_ELSEWHERE = ("data_dir", "run_dir")
"""Settings that say where files lie: the records have a hash, and the folder is the run's."""


@dataclass(frozen=True)
class Run:
    """A run folder and what its `config.yaml` says.

    `backbone` is the manifest of the converted weights, or `{"family": ..., "source": "random"}`.
    """

    folder: Path
    config: TrainConfig
    data: dict[str, Any]
    backbone: dict[str, Any]
    band_input: BandInput

    @property
    def synthetic(self) -> bool:
        """Whether the run was trained on synthetic chips."""
        return self.data["synthetic"]

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes that the training labels had."""
        return tuple(self.data["classes"])

    @property
    def title(self) -> str:
        """One line that says what was trained on what."""
        chosen, data = self.config.model, self.config.data
        architecture = ARCHITECTURE_TITLES[chosen.architecture]
        decoder = DECODER_TITLES[chosen.decoder]
        kind = "random weights" if self.backbone["source"] == "random" else self.backbone["source"]
        stored = self.data["records"][data.region]
        what = f"{'synthetic ' if self.synthetic else ''}{stored['dataset']} {stored['version']}"
        if data.setting != "id":
            what += f", {data.setting}"
        if data.budget is not None:
            what += f", {data.budget} labelled chips"
        return f"{data.region}: {chosen.backbone} {architecture} ({kind}), {decoder}, {what}"

    @property
    def model_arguments(self) -> tuple[str, str, int, int]:
        """What `random_segmenter` and `abstract_segmenter` need to know."""
        model = self.config.model
        return model.architecture, model.decoder, len(self.band_input.bands), NUM_CLASSES

    def experiment(self) -> Experiment:
        """The chips that the run was trained on. Raises InputError where they are gone."""
        records = {
            region: open_records(Path(stored["folder"]))
            for region, stored in self.data["records"].items()
        }
        return experiment_of(self.config, records)

    @property
    def predicted(self) -> tuple[int, ...]:
        """The classes that are predicted: those that the training labels had, or all six."""
        return predicted_classes(self.config.scoring.predict, self.classes)

    def values(self, which: Which = "best") -> tuple[Network, Values]:
        """The trained network and its values, ready to predict."""
        model = abstract_segmenter(*self.model_arguments)
        model.eval()
        return Network.of(model), Checkpoints(self.folder).load_model(which, values_of(model))

    def model(self, which: Which = "best") -> Segmenter:
        """The trained model, ready to predict."""
        network, values = self.values(which)
        return network.module(values)

    def logits_fn(
        self, which: Which = "best"
    ) -> Callable[[UInt16[np.ndarray, "n h w band"]], Array]:
        """The trained model as a compiled function from digital numbers to logits.

        The bands are those of `band_input`, in its order; the logits allow only `predicted`.
        """
        network, values = self.values(which)

        @compiled
        def logits(values, image):
            image = normalise(image, self.band_input).astype(self.config.device.compute_dtype)
            return restrict(network.module(values)(image), self.predicted)

        return lambda image: logits(values, image)


def predicted_classes(which: str, trained: Sequence[int]) -> tuple[int, ...]:
    """The classes to predict, `present` in training labels or `all`, after training on some."""
    return tuple(trained) if which == "present" else tuple(range(NUM_CLASSES))


def create_model(run: Run) -> Segmenter:
    """The model of `run` as it begins, with the random weights of the run's seed."""
    model = random_segmenter(*run.model_arguments, seed=run.config.optimizer.seed)
    model.set_attributes(remat=run.config.device.remat)
    return model


def start_run(
    config: TrainConfig,
    records: Mapping[str, Records],
    backbone: dict[str, Any],
    band_input: BandInput,
) -> Run:
    """Make the folder of a run and write its `config.yaml`, or take up the run that it holds.

    `records` are those of each region that takes part. Raises InputError where they lack a band or
    the chips that are asked for, where the folder cannot be written, and where it holds a run with
    other settings.
    """
    for of_region in records.values():
        band_input.indices(of_region.bands, str(of_region.folder))
    experiment = experiment_of(config, records)
    run = Run(
        folder=config.log.run_dir,
        config=config,
        data={
            "records": {
                region: {
                    "dataset": of_region.name,
                    "variant": of_region.variant,
                    "version": of_region.version,
                    "folder": str(of_region.folder.absolute()),
                }
                for region, of_region in records.items()
            },
            "sizes": experiment.sizes,
            "chips": experiment.digest,
            "classes": experiment.classes,
            "synthetic": any(of_region.synthetic for of_region in records.values()),
        },
        backbone=backbone,
        band_input=band_input,
    )
    path = run.folder / "config.yaml"
    if path.exists():
        _refuse_other_settings(open_run(run.folder), run)
    if not is_first_process():
        return run
    content = {
        "config": _settings(config),
        "data": run.data,
        "model": {**dataclasses.asdict(band_input), "backbone": run.backbone},
        **provenance(),
    }
    with writing(f"--run-dir {run.folder}"):
        run.folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(yaml.safe_dump(_plain(content), sort_keys=False))
    return run


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run folder, made if need be, against every other process until the block ends.

    Raises InputError where another trains in it, or where it cannot be written.
    """
    busy = f"another process trains in {folder}: wait for it, or give another --run-dir"
    with ExitStack() as stack:
        with writing(f"--run-dir {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / ".lock", busy))
        yield


def experiment_of(config: TrainConfig, records: Mapping[str, Records]) -> Experiment:
    """The chips that a run of these settings trains, validates and tests on.

    Raises InputError where the records lack them.
    """
    data = config.data
    return plan(
        records,
        data.region,
        setting="id" if data.ood_mode == "pretrain" else data.setting,
        others=data.other_chips,
        budget=data.budget,
        listed=data.labelled == "listed",
        by=data.splits,
        seed=config.optimizer.seed,
    )


def _settings(config: TrainConfig) -> dict[str, Any]:
    """The settings of a run as its config.yaml holds them."""
    return {name: v for name, v in config.settings().items() if name not in _ELSEWHERE}


def open_run(folder: Path) -> Run:
    """Read a run folder's `config.yaml`. Raises InputError where it is missing or damaged."""
    path = folder / "config.yaml"
    try:
        content = yaml.safe_load(path.read_text())
        settings, model = content["config"], content["model"]
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        for name, word, known in unknown_words(settings):
            raise InputError(
                f"{path} names the {name} {word}, which this version of jaxcrop does not know: it "
                f"knows {', '.join(known)}"
            )
        config = TrainConfig.of(**settings)
        if _settings(config).keys() != settings.keys() or "records" not in content["data"]:
            raise KeyError("a setting is missing")
        band_input = BandInput(
            *(tuple(model[field]) for field in ("bands", "offset", "divisor")), model["clip"]
        )
        return Run(folder, config, content["data"], model["backbone"], band_input)
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} is no run folder, it has no config.yaml: give the folder of a training run"
        ) from error
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is damaged or of another version of jaxcrop: train again into a new folder"
        ) from error


def _refuse_other_settings(old: Run, new: Run) -> None:
    """A run resumes under the settings it began with; only its length may change.

    So may the place of its records, whose chips have a hash, and what `_FREE` names.
    """
    differing = []
    for part in (lambda run: _settings(run.config), lambda run: run.data, lambda run: run.backbone):
        before, after = _plain(part(old)), _plain(part(new))
        differing += [
            f"{key} {before.get(key)}, not {after.get(key)}"
            for key in sorted(set(before) | set(after))
            if key not in (*_FREE, "records") and before.get(key) != after.get(key)
        ]
    if differing:
        raise InputError(
            f"{old.folder} holds a run with {'; '.join(differing)}: give the same settings to "
            "resume it, or another --run-dir"
        )


def _plain(value: Any) -> Any:
    """`value` with tuples as lists and paths as text, as YAML holds it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
