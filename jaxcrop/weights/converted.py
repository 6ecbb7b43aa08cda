"""Converted weights on disk: `manifest.json` beside an Orbax checkpoint of the backbone's state.

The state holds parameters and batch statistics together, as a nested dict of float32 arrays whose
keys are the module's attribute names and list indices ("layer1", "0", "conv1", "kernel").
"""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxcrop.data.bands import BandInput
from jaxcrop.errors import InputError
from jaxcrop.weights.stem import adapt_stem

if TYPE_CHECKING:
    from flax import nnx

    from jaxcrop.models.segmenter import Segmenter

MANIFEST_FIELDS = (
    "source", "sha256", "family", "layout", "architecture", "in_channels",
    "bands", "divisor", "clip", "licence", "dropped", "jaxcrop_version",
)  # fmt: skip


def save_converted(path: str | Path, manifest: dict, params: dict) -> None:
    """Write converted weights to the new folder `path`, whole or not at all.

    Raises InputError where `path` exists already or cannot be written.
    """
    from orbax.checkpoint import v1 as ocp  # noqa: PLC0415 - seconds that --help need not take

    path = Path(path).absolute()
    refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
            staging = Path(temporary) / path.name
            staging.mkdir()
            ocp.save(staging / "params", params)
            (staging / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
            os.rename(staging, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def refuse_existing(path: Path) -> None:
    """Raise InputError where `path` exists: converted weights are never overwritten."""
    if path.exists():
        raise InputError(f"{path} exists already: remove it or choose another name")


def read_manifest(path: str | Path) -> tuple[dict, BandInput]:
    """The manifest of converted weights, and what it says should be fed to the network.

    Raises InputError for a folder without a manifest, or with one that is damaged or of another
    version of jaxcrop.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except OSError as error:
        raise InputError(
            f"{path} holds no converted weights (no manifest.json): make them with "
            "`python -m weights_convert convert`"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}/manifest.json is damaged: convert the weights again") from error
    if not isinstance(manifest, dict) or set(manifest) != set(MANIFEST_FIELDS):
        raise InputError(
            f"{path}/manifest.json is of another version of jaxcrop: convert the weights again"
        )
    bands = BandInput(tuple(manifest["bands"]), tuple(manifest["divisor"]), manifest["clip"])
    return manifest, bands


def load_converted(path: str | Path) -> tuple[dict, dict]:
    """The manifest and the state (nested dict of numpy arrays) of converted weights.

    Raises InputError for a folder that is missing, of another version of jaxcrop or damaged.
    """
    from orbax.checkpoint import v1 as ocp  # noqa: PLC0415

    path = Path(path).absolute()
    manifest, _ = read_manifest(path)
    try:
        params = ocp.load(path / "params")
    # Orbax names no common base for what a damaged checkpoint makes it raise.
    except Exception as error:
        raise InputError(f"{path}/params cannot be read: convert the weights again") from error
    return manifest, params


def part_of(model: "Segmenter", architecture: str) -> "nnx.Module":
    """The part of a segmenter that weights of `architecture` fill: its backbone, or all of it."""
    return model.backbone if architecture == "resnet50" else model


def load_weights(module: "nnx.Module", path: str | Path) -> dict:
    """Fill `module`, in place, with the converted weights in `path`; returns their manifest.

    The module may be abstract (made by `nnx.eval_shape`). A three-channel ImageNet stem is extended
    to the module's channels (weights_spec 4). Raises InputError, naming both sides, unless all
    names and shapes agree.
    """
    import jax  # noqa: PLC0415

    manifest, params = load_converted(path)
    variables = state_variables(module)
    state = flatten(params)
    stem = next(name for name in ("conv1.kernel", "backbone.conv1.kernel") if name in variables)
    in_channels = variables[stem].shape[2]
    if in_channels != manifest["in_channels"] and stem in state:
        if manifest["family"] != "imagenet":
            raise InputError(
                f"{path} takes {manifest['in_channels']} channels "
                f"({', '.join(manifest['bands'])}), not {in_channels}: give those bands, or use "
                "ImageNet weights"
            )
        state[stem] = adapt_stem(state[stem], in_channels)
    difference = mismatch(
        {name: variable.shape for name, variable in variables.items()},
        {name: value.shape for name, value in state.items()},
    )
    if difference:
        raise InputError(f"{path} does not fit the model: it {difference}")
    for name, variable in variables.items():
        variable.set_value(jax.device_put(state[name]))
    return manifest


def state_variables(module: "nnx.Module") -> "dict[str, nnx.Variable]":
    """The parameters and batch statistics of a module by their path, written "layer1.0.bn1.mean".

    Works on an abstract module (of `nnx.eval_shape`) too.
    """
    from flax import nnx  # noqa: PLC0415

    state = nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): variable for path, variable in state}


def flatten(params: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """A nested state by path, written as in `state_variables`."""
    flat = {}
    for key, value in params.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(flat: dict[str, np.ndarray]) -> dict:
    """The inverse of `flatten`."""
    nested: dict = {}
    for path, value in flat.items():
        *parents, name = path.split(".")
        node = nested
        for key in parents:
            node = node.setdefault(key, {})
        node[name] = value
    return nested


def mismatch(expected: dict[str, tuple], found: dict[str, tuple]) -> str | None:
    """How two tables of shapes by name differ, as a clause naming both sides; None if equal."""
    differing = [
        f"{name} {found[name]} for {expected[name]}"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    parts = {
        "lacks": [name for name in expected if name not in found],
        "has besides": [name for name in found if name not in expected],
        "has another shape for": differing,
    }
    return "; ".join(f"{verb} {shorten(names)}" for verb, names in parts.items() if names) or None


def shorten(names: list[str], limit: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
