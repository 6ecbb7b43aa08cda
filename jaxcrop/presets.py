"""The presets of a training run, and the command line that starts from one of them."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcrop.config import PARTS, TrainConfig, flag
from jaxcrop.errors import InputError, first_line

DEMO_DEFAULTS = {
    "weights": "random",
    "tune": "full",
    "steps": 40,
    "batch_size": 4,
    "eval_every": 20,
}
"""What `--demo` changes: a few minutes on two cores, without any download."""


def paper_defaults(family: str, setting: str) -> dict[str, Any]:
    """What `--preset paper` changes (datasets_spec 8): each is a switch to be turned by itself."""
    return {
        "variant": "paper-raw",
        "decoder": "fpn" if family == "satlas" else "unet",
        "upsample": "random",
        "other_chips": "all",
        "frozen_batchnorm": "update",
        "epochs": 100 if setting == "id" else 50,
        "batch_size": 128,
        "sampling": "replacement",
        "augmentation": "fresh",
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "plateau_patience": 1,
        "batchnorm_batches": 0,
        "predict": "all",
        "validation_loss": "batches",
        "test_checkpoint": "last",
    }


def parse_train_config(argv: Sequence[str] | None = None) -> TrainConfig:
    """Read a TrainConfig from `argv`, whose `--config FILE` names a YAML file of settings.

    The file's values become arguments ahead of the others, so they are validated alike and the
    command line wins. Raises InputError where the file is unreadable or not a flat mapping.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if "--config" in argv:
        at = argv.index("--config")
        if at + 1 == len(argv):
            raise InputError("--config needs the name of a YAML file")
        argv = _yaml_arguments(Path(argv[at + 1])) + argv[:at] + argv[at + 2 :]
    defaults = DEMO_DEFAULTS if "--demo" in argv else {}
    config = _parsed(argv, defaults)
    if config.preset == "paper":  # it depends on two of the settings, so they are parsed first
        paper = paper_defaults(config.model.backbone, config.data.setting)
        config = _parsed(argv, paper | defaults)
    return config


def _parsed(argv: Sequence[str], defaults: Mapping[str, Any]) -> TrainConfig:
    import tyro  # noqa: PLC0415  (kept out of `import jaxcrop.config`)

    parts = {}
    for name, kind in PARTS.items():
        fields = dataclasses.fields(kind)
        required = {f.name: tyro.MISSING for f in fields if f.default is dataclasses.MISSING}
        given = {f.name: defaults[f.name] for f in fields if f.name in defaults}
        parts[name] = kind(**required | given)
    default = object.__new__(TrainConfig)  # required settings are missing: nothing to check yet
    for name, value in {**parts, "preset": "default", "demo": False}.items():
        object.__setattr__(default, name, value)
    return tyro.cli(
        tyro.conf.OmitArgPrefixes[TrainConfig],
        args=argv,
        default=default,
        prog="python -m jaxcrop.train",
    )


def _yaml_arguments(path: Path) -> list[str]:
    """The flat YAML mapping in `path` as command-line arguments."""
    import yaml  # noqa: PLC0415

    try:
        settings = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {first_line(error)}") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path} must be a mapping of setting: value")
    return arguments(settings)


def arguments(settings: Mapping[str, Any]) -> list[str]:
    """Settings by name as command-line arguments; those that are None are left out."""
    words = []
    for key, value in settings.items():
        option = flag(str(key))
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, list | tuple):
            words += [f"--{option}", *map(str, value)]
        else:
            words += [f"--{option}", str(value)]
    return words
