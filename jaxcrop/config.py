"""Every setting of a training run and its default, which YAML and the command line override."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jaxcrop.errors import InputError
from jaxcrop.regions import REGIONS

Family = Literal["ssl4eo", "satlas", "imagenet"]

ARCHITECTURE_TITLES = {
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "resnet152": "ResNet-152",
    "vit-s16": "ViT-S/16",
    "vit-b16": "ViT-B/16",
    "vit-l16": "ViT-L/16",
    "vit-h14": "ViT-H/14",
    "vit-s14": "ViT-S/14",
    "vit-b14": "ViT-B/14",
    "swin-v2-t": "Swin-v2-T",
    "swin-v2-b": "Swin-v2-B",
}
"""How a title writes each backbone of `jaxcrop.models.backbones`, which --help need not import."""

DECODER_TITLES = {"unet": "U-Net", "fpn": "FPN", "upernet": "UPerNet", "linear": "linear head"}
"""How a title writes each decoder of `jaxcrop.models.decoders`."""

_STATISTICS_CHIPS = 16
"""As many as these set statistics as well as 64 do (docs/training.md)."""


@dataclass(frozen=True)
class ModelConfig:
    """What is trained."""

    backbone: Family
    """Family of the pretrained weights."""
    architecture: Literal[tuple(ARCHITECTURE_TITLES)] = "resnet50"  # type: ignore[valid-type]
    """The backbone."""
    decoder: Literal[tuple(DECODER_TITLES)] = "unet"  # type: ignore[valid-type]
    """What turns the backbone's feature maps into a map of classes."""
    weights: str = "published"
    """Weights to begin with: `published` (what the family stands for), the NAME of a published set,
    `random`, or a folder: that of a training run, or one that `python -m weights_convert convert`
    wrote. `python -m weights_convert list` prints the names, `... fetch NAME` gets a set."""
    upsample: Literal["published", "random"] = "published"
    """Weights of an FPN's upsampling layers, where SatlasPretrain publishes them; the paper's were
    `random`, since its library leaves them out."""
    bands: tuple[str, ...] | None = None
    """Bands to see, with `--weights random` only (default: the bands the family was trained on)."""

    def __post_init__(self):
        if self.bands is not None and self.weights != "random":
            raise InputError("--bands needs --weights random: pretrained weights fix their bands")


@dataclass(frozen=True)
class DataConfig:
    """What it is trained and tested on."""

    region: Literal[tuple(REGIONS)]  # type: ignore[valid-type]
    """Region whose chips are tested on, and trained on unless `--setting ood`."""
    data_dir: Path | None = None
    """Folder of the built records (default: $JAXCROP_DATA_DIR, else ~/.cache/jaxcrop/data)."""
    variant: str = "standard"
    """Variant of the records: `paper-raw` has the paper's labels and radiometry."""
    setting: Literal["id", "ood", "ood+id"] = "id"
    """Train on the region itself (in distribution), on other regions (out of it), or on both; it is
    tested on the region."""
    ood_mode: Literal["mix", "pretrain"] = "mix"
    """In `ood+id`, train on all chips at once, or first on the other regions (in RUN/pretraining)
    and then on the region."""
    training_regions: tuple[Literal[tuple(REGIONS)], ...] | None = None  # type: ignore[valid-type]
    """The other regions that take part in `ood` and `ood+id` (default: the paper's)."""
    other_chips: Literal["train", "all", "balanced"] = "train"
    """Train on the other regions' training chips; on all, their test chips too, as the paper does;
    or on so many of the best labelled that every region has about as many labelled pixels."""
    budget: int | None = None
    """Labelled chips of the region, 10 % of which validate (default: all of its training chips)."""
    labelled: Literal["drawn", "listed"] = "drawn"
    """The budget's chips are drawn by the seed, smaller budgets among the larger; or are those of
    the paper's list of that size, in the folder that `--splits` names."""
    splits: str = "built"
    """How chips are divided into train, validation and test: as the records were `built`, anew at
    `random` or in `blocked` groups of neighbours, or as the lists in a folder say."""

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions whose records take part, the tested one first.

        A run that goes on from one that was pretrained on the others needs them no more.
        """
        alone = self.setting == "id" or self.ood_mode == "pretrain"
        paper = tuple(name for name, region in REGIONS.items() if region.in_paper)
        others = () if alone else self.training_regions or paper
        return (self.region, *(region for region in others if region != self.region))


@dataclass(frozen=True)
class TuningConfig:
    """Which parameters are trained."""

    tune: Literal["frozen", "full", "discriminative", "bitfit", "lora"] = "frozen"
    """The backbone stays as it is (with `--decoder linear`: a linear probe), is trained in `full`,
    by rates that fall towards its first stage, in its biases alone, or by low-rank updates of its
    attention (ViT and Swin). The decoder is always trained."""
    stage_decay: float = 0.5
    """Learning rate of each stage of the backbone over that of the next, if `discriminative`."""
    lora_rank: int = 8
    """Rank of the updates of `lora`."""
    rates: tuple[str, ...] = ()
    """Groups of your own, PATTERN=RATE each, ahead of those of `--tune`: parameters whose whole
    name matches the regular expression learn at RATE times the learning rate; 0 freezes them."""
    frozen_batchnorm: Literal["keep", "update"] = "keep"
    """A backbone not trained in full keeps its batch-normalisation statistics, or normalises by the
    batch and moves them, as the paper's does."""


@dataclass(frozen=True)
class LossConfig:
    """What is minimised."""

    loss: tuple[Literal["cross-entropy", "focal", "dice", "jaccard"], ...] = ("cross-entropy",)
    """The loss, or several that are added up."""
    loss_weights: tuple[float, ...] = ()
    """Factor of each loss (default: 1)."""
    class_weights: Literal["none", "inverse", "effective"] = "none"
    """Weigh classes by inverse frequency in the training labels, or by their effective number."""
    label_smoothing: float = 0.0
    """Share of a pixel's label that is spread over all classes, in the cross-entropy."""
    focal_gamma: float = 2.0
    """How much the focal loss plays down pixels that are already right."""


@dataclass(frozen=True)
class OptimizerConfig:
    """How it is minimised."""

    steps: int = 700
    """Optimiser steps in all."""
    epochs: int | None = None
    """Passes over the training chips, in place of --steps."""
    batch_size: int = 16
    """Chips per step, over all devices."""
    sampling: Literal["shuffled", "replacement"] = "shuffled"
    """Each pass sees every chip once and batches run on across passes; or each draws as many chips
    as there are, with replacement, and ends with a smaller batch, as the paper's does."""
    augmentation: Literal["fresh", "views", "none"] = "fresh"
    """Crop and flip each chip anew in every step, as the paper does; in one of `--views` ways that
    are fixed for each chip; or not at all."""
    views: int = 4
    """Ways in which a chip is seen, with `--augmentation views`."""
    learning_rate: float = 1e-3
    """AdamW's learning rate before the plateau rule lowers it."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay, on every trained parameter."""
    plateau_patience: int = 1
    """Validations without improvement that the learning rate outlasts; one more lowers it."""
    clip_norm: float | None = None
    """Norm that the gradient is scaled down to where it is larger."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other: less memory, the same gradient but
    for batch-normalisation statistics and region losses, which are those of a part."""
    ema: float | None = None
    """Validate and keep a moving average of the weights, with this decay per step, as 0.99."""
    batchnorm_batches: int | None = None
    """Training batches that set the batch-normalisation statistics anew before each validation
    (default: as many as hold 16 chips; 0: keep running averages alone, as PyTorch does)."""
    eval_every: int | None = None
    """Steps between validations and checkpoints (default: one pass over the training chips)."""
    seed: int = 0
    """Seed of the initial weights, the budget, the order of the chips and the augmentation."""

    def statistics_batches(self, chips: int, batch_size: int) -> int:
        """How many whole batches of the training chips set the batch-normalisation statistics."""
        wanted = self.batchnorm_batches
        if wanted is None:
            wanted = math.ceil(_STATISTICS_CHIPS / batch_size)
        return min(wanted, chips // batch_size)


@dataclass(frozen=True)
class ScoringConfig:
    """What validation and testing do."""

    predict: Literal["present", "all"] = "present"
    """Predict only classes that the training labels have, or all, as the paper does."""
    validation_loss: Literal["pixels", "batches"] = "pixels"
    """Average the validation loss over pixels, or over batches by their number of chips, as the
    paper does."""
    test_checkpoint: Literal["best", "last"] = "best"
    """Test the checkpoint of the lowest validation loss, or the last, as the paper does."""


@dataclass(frozen=True)
class DeviceConfig:
    """How the devices are used; the result is the same up to rounding."""

    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the network computes in; parameters, statistics and the loss stay in float32."""
    remat: bool = False
    """Compute activations again in the backward pass in place of keeping them: less memory, for
    another forward pass."""
    device_cache: Literal["auto", "on", "off"] = "auto"
    """Keep the training chips on the device and run the steps between validations as one program:
    where an accelerator has room for them, always, or never."""
    keep_maps: Literal["auto", "on", "off"] = "auto"
    """Compute the maps of a frozen backbone once for each chip and view, and keep them on disk, in
    the run folder, while the run lasts; with `--augmentation views` or `none`: on a CPU, always, or
    never."""
    shard_parameters: bool = False
    """Spread parameters and optimiser over the devices (FSDP) in place of a copy on each."""
    workers: int = 0
    """Processes that read chips (0: threads of this one)."""
    distributed: bool = False
    """This process is one of several that SLURM, Open MPI, Kubernetes or a TPU pod started."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where nothing starts the processes but you; with the next two."""
    num_processes: int | None = None
    """Number of processes that train together."""
    process_id: int | None = None
    """Number of this process, from 0."""


@dataclass(frozen=True)
class LogConfig:
    """What is kept of a run."""

    run_dir: Path | None = None
    """Folder that receives the run; the same command resumes it (default:
    runs/REGION-BACKBONE-ARCHITECTURE-DECODER[-SETTING][-BUDGET])."""
    trackers: tuple[Literal["wandb", "mlflow"], ...] = ()
    """Send scalars and pictures to Weights & Biases or MLflow too."""
    profile: bool = False
    """Trace a few steps into RUN/profile, for Perfetto and XProf."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a segmentation model of a region's crops and evaluate it on the region's test chips.

    Settings are grouped here by what they concern; everywhere else (command line, YAML, a run's
    config.yaml, `TrainConfig.of`) their names stand side by side.
    """

    model: ModelConfig
    data: DataConfig
    tuning: TuningConfig = field(default_factory=TuningConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    log: LogConfig = field(default_factory=LogConfig)
    preset: Literal["default", "paper"] = "default"
    """Defaults to start from: ours, or the protocol of arXiv 2409.09451."""
    demo: bool = False
    """Draw a synthetic region, train on it for a few minutes, and map a held-out scene."""

    def __post_init__(self):
        _check(self)

    @classmethod
    def of(cls, **settings: Any) -> "TrainConfig":
        """The configuration with these settings, named as on the command line.

        Raises TypeError for a name that no setting has, InputError for a value that it cannot have.
        """
        for name in ("data_dir", "run_dir"):
            if settings.get(name) is not None:
                settings[name] = Path(settings[name])
        parts = {}
        for part in dataclasses.fields(cls):
            if part.name in PARTS:
                kind = PARTS[part.name]
                names = {f.name for f in dataclasses.fields(kind)} & settings.keys()
                parts[part.name] = kind(**{name: settings.pop(name) for name in names})
        return cls(**parts, **settings)

    def replaced(self, **settings: Any) -> "TrainConfig":
        """The same configuration with other values of some settings."""
        return TrainConfig.of(**{**self.settings(), **settings})

    @property
    def lacking_to_keep_maps(self) -> list[str]:
        """The options that are missing for the maps of a chip to stay the same through a run."""
        tuning, how = self.tuning, self.optimizer.augmentation
        return [
            option
            for changes, option in (
                (tuning.tune != "frozen", "--tune frozen"),
                (tuning.frozen_batchnorm != "keep", "--frozen-batchnorm keep"),
                (bool(tuning.rates), "no --rates"),
                (how == "fresh", "--augmentation views or none"),
                (self.device.device_cache == "on", "--device-cache off"),
            )
            if changes
        ]

    def settings(self) -> dict[str, Any]:
        """Every setting by its name."""
        values = {}
        for part in dataclasses.fields(self):
            value = getattr(self, part.name)
            values |= vars(value) if part.name in PARTS else {part.name: value}
        return values


PARTS: dict[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "tuning": TuningConfig,
    "loss": LossConfig,
    "optimizer": OptimizerConfig,
    "scoring": ScoringConfig,
    "device": DeviceConfig,
    "log": LogConfig,
}
"""The groups of settings, by their names in a `TrainConfig`."""


_AT_LEAST_1 = (
    "steps", "epochs", "batch_size", "views", "eval_every", "budget", "accumulate", "lora_rank"
)  # fmt: skip
_RANGES = (
    *((name, lambda value: value >= 1, "at least 1") for name in _AT_LEAST_1),
    ("batchnorm_batches", lambda value: value >= 0, "0 or more"),
    ("plateau_patience", lambda value: value >= 0, "0 or more"),
    ("workers", lambda value: value >= 0, "0 or more"),
    ("seed", lambda value: value >= 0, "0 or more"),
    ("learning_rate", lambda value: value > 0, "above 0"),
    ("clip_norm", lambda value: value > 0, "above 0"),
    ("stage_decay", lambda value: value > 0, "above 0"),
    ("ema", lambda value: 0 <= value < 1, "from 0 to below 1"),
    ("label_smoothing", lambda value: 0 <= value < 1, "from 0 to below 1"),
)


def _choices(kind: Any) -> tuple[str, ...]:
    """What a setting of this type may be, where it is one of several words, or a tuple of such."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next(filter(None, map(_choices, get_args(kind))), ())


_CHOICES = {
    field.name: choices
    for kind in (TrainConfig, *PARTS.values())
    for field in dataclasses.fields(kind)
    if (choices := _choices(field.type))
}


def unknown_words(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Every setting that is none of the words it may be: its name, the word, and those."""
    for name, choices in _CHOICES.items():
        value = settings.get(name)
        for word in value if isinstance(value, tuple | list) else (value,):
            if word is not None and word not in choices:
                yield name, word, choices


def _check(config: TrainConfig) -> None:
    """Raise InputError where a setting is out of its range or at odds with another."""
    settings = config.settings()
    for name, word, choices in unknown_words(settings):
        raise InputError(f"--{flag(name)} must be one of {', '.join(choices)}, not {word}")
    for name, holds, words in _RANGES:
        if settings[name] is not None and not holds(settings[name]):
            raise InputError(f"--{flag(name)} must be {words}, not {settings[name]}")
    data, model, optimizer, device = config.data, config.model, config.optimizer, config.device
    losses, factors = config.loss.loss, config.loss.loss_weights
    by_hand = {
        name is None for name in (device.coordinator, device.num_processes, device.process_id)
    }
    for wrong, sentence in (
        (
            data.setting == "ood" and data.budget is not None,
            "--setting ood has no use for a --budget: leave it out, or give ood+id",
        ),
        (
            data.setting == "id" and data.training_regions is not None,
            "--training-regions need --setting ood or ood+id",
        ),
        (
            data.labelled == "listed" and data.budget not in (10, 100, 900),
            "--labelled listed needs a --budget of 10, 100 or 900, and --splits FOLDER",
        ),
        (
            data.setting != "ood+id" and data.ood_mode == "pretrain",
            "--ood-mode pretrain needs --setting ood+id",
        ),
        (
            config.tuning.tune == "lora" and not model.architecture.startswith(("vit", "swin")),
            f"--tune lora needs attention, which {model.architecture} lacks: choose a ViT or Swin",
        ),
        (
            not losses or len(factors) not in (0, len(losses)),
            f"--loss-weights needs a factor for each loss: {len(factors)} for {len(losses)}",
        ),
        (
            optimizer.batch_size % optimizer.accumulate,
            f"--accumulate {optimizer.accumulate} does not divide --batch-size "
            f"{optimizer.batch_size}: choose a divisor",
        ),
        (
            device.keep_maps == "on" and config.lacking_to_keep_maps,
            f"--keep-maps on needs {', '.join(config.lacking_to_keep_maps)}",
        ),
        (len(by_hand) > 1, "--coordinator, --num-processes and --process-id come together"),
    ):
        if wrong:
            raise InputError(sentence)


def flag(name: str) -> str:
    """A setting's name as the command line writes it, without the dashes."""
    return name.replace("_", "-")
