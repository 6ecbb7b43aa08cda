"""A process that computes cells of a sweep until none is left that no other process has."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcrop.compiling import on_cpu
from jaxcrop.config import TrainConfig
from jaxcrop.crops import NUM_CLASSES
from jaxcrop.data.bands import BandInput
from jaxcrop.data.experiment import Experiment
from jaxcrop.errors import InputError, UnfinishedWriteError, first_line
from jaxcrop.features.backbones import FrozenBackbone
from jaxcrop.features.bank import FeatureBank
from jaxcrop.features.maps import ChipSet, map_specs
from jaxcrop.features.store import FeatureStore
from jaxcrop.figures import TRUE_COLOUR, stretched
from jaxcrop.models.segmenter import abstract_segmenter, random_segmenter
from jaxcrop.sweeps.cells import Cell, CellResult
from jaxcrop.sweeps.folder import SweepFolder
from jaxcrop.sweeps.heads import Job, head_values, train_heads
from jaxcrop.sweeps.study import Study, config_of
from jaxcrop.train import found, train_run
from jaxcrop.training.evaluation import Evaluation
from jaxcrop.training.provenance import provenance
from jaxcrop.training.runs import Run, experiment_of
from jaxcrop.training.scores import evaluate_run

SHOWN = 4
"""Test chips of each region that are kept with their predictions."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Tally:
    """What became of the cells that a worker saw."""

    done: int = 0
    failed: int = 0
    elsewhere: int = 0


@dataclass(frozen=True)
class Worker:
    """Computes the cells of `study` into `folder`; several may do so at once.

    `say` is told a line for each cell, `hint` of progress in between. Features of frozen backbones
    go into `store`.
    """

    study: Study
    folder: SweepFolder
    data_dir: Path | None
    store: FeatureStore
    say: Say
    hint: Say = lambda text: None
    _planned: dict[tuple, dict[str, ChipSet]] = field(default_factory=dict, init=False)

    def work(self) -> Tally:
        """Compute every cell that is neither done, nor in quarantine, nor another process's.

        A cell that fails goes into quarantine, and the others go on. A SIGTERM or a keyboard
        interrupt ends the process; the cell that it was at goes on from its last checkpoint.
        """
        done = failed = elsewhere = 0
        for cells in self.study.groups():
            if not self.folder.open_cells(cells):
                continue
            with self.folder.claimed(cells) as mine:
                if not mine:
                    elsewhere += len(self.folder.open_cells(cells))
                    continue
                for cell, outcome in self._computed(cells):
                    if cell not in self.folder.open_cells([cell]):  # done by another, or before
                        continue
                    if isinstance(outcome, CellResult):
                        self._keep(outcome)
                        done += 1
                    else:
                        self.folder.quarantine(cell, outcome)
                        self.say(f"FAILED  {cell}: {first_line(outcome)}")
                        failed += 1
            if cells[0].method == "train":
                jax.clear_caches()  # the programs of one run are of no use to the next
        return Tally(done, failed, elsewhere)

    def _keep(self, result: CellResult) -> None:
        self.folder.keep(result)
        right = np.trace(result.confusion) / max(result.confusion.sum(), 1)
        self.say(f"{right:6.1%}  {result.cell}  ({result.seconds:.0f} s)")

    def _computed(self, cells: Sequence[Cell]) -> Iterable[tuple[Cell, CellResult | Exception]]:
        """What comes out of a piece of work; a failure is every cell's that is not done yet."""
        if not self.folder.open_cells(cells):  # another process was first
            return
        began = time.monotonic()
        compute = self._trained if cells[0].method == "train" else self._heads
        try:
            yield from compute(cells, began)
        except UnfinishedWriteError:  # no fault of the cells
            raise
        except Exception as error:
            yield from ((cell, error) for cell in cells)

    def _trained(
        self, cells: Sequence[Cell], began: float
    ) -> Iterable[tuple[Cell, CellResult | Exception]]:
        (cell,) = cells
        run_dir = self.folder.run_dir(cell)
        run_dir.mkdir(parents=True, exist_ok=True)
        config = config_of(cell, data_dir=self.data_dir, run_dir=run_dir)
        with (run_dir / "output.log").open("a") as log, redirect_stdout(log), redirect_stderr(log):
            run, experiment, evaluation = train_run(config, _tested)
        yield cell, self._result(cell, experiment, evaluation, run.backbone, began)

    def _heads(
        self, cells: Sequence[Cell], began: float
    ) -> Iterable[tuple[Cell, CellResult | Exception]]:
        configs = [config_of(cell, data_dir=self.data_dir, run_dir=None) for cell in cells]
        model_config = configs[0].model
        records, beginning = found(configs[0])
        architecture, decoder = model_config.architecture, model_config.decoder
        arguments = architecture, decoder, len(beginning.band_input.bands), NUM_CLASSES
        jobs = []
        for config in configs:
            model = random_segmenter(*arguments, seed=config.optimizer.seed)  # as a run begins
            beginning.fill(model)
            jobs.append(Job(config, experiment_of(config, records), head_values(model)))
        backbone = FrozenBackbone.of(
            model, architecture, beginning.band_input, configs[0].device.compute_dtype
        )
        bank = FeatureBank(
            backbone,
            self._chips(cells[0]),
            self.store,
            dtype=configs[0].device.compute_dtype,
            say=self.hint,
        )
        together = not on_cpu() or decoder == "linear"
        outcomes = train_heads(jobs, model, bank, together=together, say=self.hint)
        for cell, job, outcome in zip(cells, jobs, outcomes, strict=True):
            if isinstance(outcome, InputError):
                yield cell, outcome
                continue
            evaluation, share = outcome.evaluation, len(cells)
            result = self._result(
                cell, job.experiment, evaluation, beginning.backbone, began, share=share
            )
            yield cell, result

    def _chips(self, cell: Cell) -> dict[str, ChipSet]:
        """The chips of each region that any heads of the study on this backbone ask for."""
        backbone = _backbone(cell)
        if backbone not in self._planned:
            self._planned[backbone] = _chips_of(self._sharing[backbone], self.data_dir)
        return self._planned[backbone]

    def _result(
        self,
        cell: Cell,
        experiment: Experiment,
        evaluation: Evaluation,
        backbone: dict[str, Any],
        began: float,
        *,
        share: int = 1,
    ) -> CellResult:
        index = experiment.indices[cell.region]
        rows = index.rows(evaluation.chip_ids)
        if not self.folder.has_examples(cell.region):
            _keep_examples(self.folder, cell.region, experiment)
        return CellResult(
            cell=cell,
            chip_ids=evaluation.chip_ids,
            per_chip=evaluation.per_chip,
            lon=index.lon[rows],
            lat=index.lat[rows],
            calibration=evaluation.calibration,
            examples=np.stack(evaluation.predictions[:SHOWN]),
            seconds=(time.monotonic() - began) / share,
            synthetic=any(of_region.synthetic for of_region in experiment.records.values()),
            about={
                **self._provenance,
                "chips": experiment.digest,
                "sizes": experiment.sizes,
                "backbone": backbone,
            },
        )

    @cached_property
    def _sharing(self) -> dict[tuple, list[Cell]]:
        return _heads_by_backbone(self.study)

    @cached_property
    def _provenance(self) -> dict[str, Any]:
        return provenance()


def _chips_of(cells: Iterable[Cell], data_dir: Path | None) -> dict[str, ChipSet]:
    """The chips of each region that any of the cells asks for."""
    chips: dict[str, set[str]] = {}
    where: dict[str, Experiment] = {}
    for cell in cells:
        config = config_of(cell, data_dir=data_dir, run_dir=None)
        try:
            experiment = experiment_of(config, found(config)[0])
        except InputError:  # that cell fails by itself
            continue
        for of_split in experiment.ids.values():
            for region, ids in of_split.items():
                chips.setdefault(region, set()).update(ids)
                where[region] = experiment
    return {
        region: ChipSet(of.records[region], of.indices[region], tuple(sorted(chips[region])))
        for region, of in where.items()
    }


def feature_bytes(study: Study, data_dir: Path | None) -> int:
    """What the features of all heads of the study take, at most, where they are kept."""
    total = 0
    for cells in _heads_by_backbone(study).values():
        configs = [config_of(cell, data_dir=data_dir, run_dir=None) for cell in cells]
        seen, dtype = found(configs[0])[1].band_input, configs[0].device.compute_dtype
        architecture = configs[0].model.architecture
        model = abstract_segmenter(architecture, "linear", len(seen.bands), NUM_CLASSES)
        backbone = FrozenBackbone.of(model, architecture, seen, dtype)
        of_training = [c.optimizer.views for c in configs if c.optimizer.augmentation == "views"]
        views = 1 + max(of_training, default=0)
        for chips in _chips_of(cells, data_dir).values():
            with suppress(InputError):  # records that lack a band: those cells fail by themselves
                specs = map_specs(backbone, chips, dtype)
                total += views * sum(spec.size for spec in specs.values())
    return total


def missing(study: Study, data_dir: Path | None) -> list[str]:
    """A sentence for each set of records, and each weights, that the study needs and are not there.

    Raises InputError for weights of another kind than the study says.
    """
    sentences: dict[str, None] = {}
    seen = set()
    for cell in study.cells:
        config = config_of(cell, data_dir=data_dir, run_dir=None)
        what = (config.model, config.data.regions, config.data.variant)
        if what in seen:
            continue
        seen.add(what)
        try:
            found(config)
        except InputError as error:
            sentences[str(error).removeprefix("missing: ")] = None
    return list(sentences)


def _tested(run: Run) -> tuple[Run, Experiment, Evaluation]:
    scoring, size = run.config.scoring, run.config.optimizer.batch_size
    experiment = run.experiment()
    chips = experiment.chips("test", run.band_input)
    evaluation = evaluate_run(run, chips, scoring.test_checkpoint, size, pictures=SHOWN)
    return run, experiment, evaluation


def _backbone(cell: Cell) -> tuple:
    """What tells whose features two cells of heads need; a random backbone is its seed's own."""
    names = ("variant", "bands", "compute_dtype")
    config: TrainConfig = config_of(cell, data_dir=None, run_dir=None)
    weights = config.model.weights
    return (
        *(cell.method, cell.family, cell.architecture, weights),
        cell.seed if weights == "random" else None,
        *(config.settings()[name] for name in names),
    )


def _heads_by_backbone(study: Study) -> dict[tuple, list[Cell]]:
    """The cells of heads by what `_backbone` says of them."""
    cells: dict[tuple, list[Cell]] = {}
    for cell in study.cells:
        if cell.method == "heads":
            cells.setdefault(_backbone(cell), []).append(cell)
    return cells


def _keep_examples(folder: SweepFolder, region: str, experiment: Experiment) -> None:
    """Keep the first test chips of a region in true colour, each stretched by itself."""
    bands = experiment.records[region].bands
    colours = tuple(band if band in bands else bands[0] for band in TRUE_COLOUR.bands)
    chips = experiment.chips("test", BandInput.scaled(colours))
    chips = [chips[number] for number in range(min(SHOWN, len(chips)))]
    pictures = [stretched(c.image.astype(np.float32), c.image.any(axis=-1)) for c in chips]
    rgb = np.stack([np.round(picture * 255).astype(np.uint8) for picture in pictures])
    folder.keep_examples(
        region, [chip.chip_id for chip in chips], rgb, np.stack([chip.label for chip in chips])
    )


def training_chips(config: TrainConfig) -> int:
    """How many chips a run of these settings trains on; its budget, if that cannot be had."""
    try:
        sizes = experiment_of(config, found(config)[0]).sizes["train"]
    except InputError:
        return config.data.budget or 0
    return sum(sizes.values())
