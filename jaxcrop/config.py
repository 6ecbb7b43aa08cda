"""Every setting of a training run and its default, which YAML and the command line override."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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


@dataclass(frozen=True)
class TrainConfig:
    """Train a segmentation model of a region's crops and evaluate it on the region's test chips."""

    backbone: Family
    """Family of the pretrained weights."""
    region: Literal[tuple(REGIONS)]  # type: ignore[valid-type]
    """Region whose chips are trained and tested on."""
    architecture: Literal[tuple(ARCHITECTURE_TITLES)] = "resnet50"  # type: ignore[valid-type]
    """The backbone."""
    decoder: Literal[tuple(DECODER_TITLES)] = "unet"  # type: ignore[valid-type]
    """What turns the backbone's feature maps into a map of classes."""
    weights: str = "published"
    """Weights to begin with: `published` (what the family stands for), the NAME of a published set,
    `random`, or the folder that `python -m weights_convert convert` wrote. `python -m
    weights_convert list` prints the names, `... fetch NAME` gets a set."""
    data_dir: Path | None = None
    """Folder of the built records (default: $JAXCROP_DATA_DIR, else ~/.cache/jaxcrop/data)."""
    variant: str = "standard"
    """Variant of the records: `paper-raw` has the paper's labels and radiometry."""
    setting: Literal["id", "ood", "ood+id"] = "id"
    """Train on the region itself (in distribution), on other regions (out of it), or on both; it is
    tested on the region."""
    training_regions: tuple[Literal[tuple(REGIONS)], ...] | None = None  # type: ignore[valid-type]
    """The other regions that take part in `ood` and `ood+id` (default: all)."""
    budget: int | None = None
    """Labelled chips of the region, 10 % of which validate (default: all of its training chips)."""
    splits: str = "built"
    """How chips are divided into train, validation and test: as the records were `built`, anew at
    `random` or in `blocked` groups of neighbours, or as the lists in a folder say."""
    run_dir: Path | None = None
    """Folder that receives the run; the same command resumes it (default:
    runs/REGION-BACKBONE-ARCHITECTURE-DECODER[-SETTING][-BUDGET])."""
    demo: bool = False
    """Draw a synthetic region, train on it for a few minutes, and map a held-out scene."""
    bands: tuple[str, ...] | None = None
    """Bands to see, with `--weights random` only (default: the bands the family was trained on)."""
    freeze: bool = True
    """Keep the backbone as it is, its batch-normalisation statistics too."""
    steps: int = 700
    """Optimiser steps in all."""
    batch_size: int = 16
    """Chips per step, over all devices."""
    learning_rate: float = 1e-3
    """AdamW's learning rate before the plateau rule lowers it."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay, on every trained parameter."""
    plateau_patience: int = 1
    """Validations without improvement that the learning rate outlasts; one more lowers it."""
    batchnorm_batches: int = 8
    """Training batches that set the batch-normalisation statistics anew before each validation
    (0: keep running averages alone, as PyTorch does)."""
    eval_every: int | None = None
    """Steps between validations and checkpoints (default: one pass over the training chips)."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the network computes in; parameters, statistics and the loss stay in float32."""
    seed: int = 0
    """Seed of the initial weights, the order of the chips and the augmentation."""

    def __post_init__(self):
        for name in ("steps", "batch_size", "eval_every", "budget"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if self.batchnorm_batches < 0:
            raise InputError(f"--batchnorm-batches must be 0 or more, not {self.batchnorm_batches}")
        if not self.learning_rate > 0:
            raise InputError(f"--learning-rate must be above 0, not {self.learning_rate}")
        if self.setting == "ood" and self.budget is not None:
            raise InputError(
                "--setting ood has no use for a --budget: leave it out, or give ood+id"
            )
        if self.setting == "id" and self.training_regions is not None:
            raise InputError("--training-regions need --setting ood or ood+id")
        if self.bands is not None and self.weights != "random":
            raise InputError("--bands needs --weights random: pretrained weights fix their bands")

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions whose records take part, the tested one among them."""
        others = () if self.setting == "id" else self.training_regions or tuple(REGIONS)
        return (self.region, *(region for region in others if region != self.region))


DEMO_DEFAULTS = {
    "weights": "random",
    "freeze": False,
    "steps": 40,
    "batch_size": 4,
    "batchnorm_batches": 4,
    "eval_every": 20,
}
"""What `--demo` changes: a few minutes on two cores, without any download."""


def parse_train_config(argv: Sequence[str] | None = None) -> TrainConfig:
    """Read a TrainConfig from `argv`, whose `--config FILE` names a YAML file of settings.

    The file's values become arguments ahead of the others, so they are validated alike and the
    command line wins. Raises InputError where the file is unreadable or not a flat mapping.
    """
    import tyro  # noqa: PLC0415  (kept out of `import jaxcrop.config`)

    argv = list(sys.argv[1:] if argv is None else argv)
    if "--config" in argv:
        at = argv.index("--config")
        if at + 1 == len(argv):
            raise InputError("--config needs the name of a YAML file")
        argv = _yaml_arguments(Path(argv[at + 1])) + argv[:at] + argv[at + 2 :]
    defaults = DEMO_DEFAULTS if "--demo" in argv else {}
    default = TrainConfig(backbone=tyro.MISSING, region=tyro.MISSING, **defaults)
    return tyro.cli(TrainConfig, args=argv, default=default, prog="python -m jaxcrop.train")


def _yaml_arguments(path: Path) -> list[str]:
    """The flat YAML mapping in `path` as command-line arguments."""
    import yaml  # noqa: PLC0415

    try:
        settings = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path} must be a mapping of setting: value")
    arguments = []
    for key, value in settings.items():
        flag = str(key).replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            arguments += [f"--{flag}", *map(str, value)]
        else:
            arguments += [f"--{flag}", str(value)]
    return arguments
