"""Converted weights on disk: `manifest.json` beside `weights.safetensors`.

The tensors are float32 and named by their paths in a Segmenter ("backbone.layer1.0.conv1.kernel"),
parameters and batch statistics together. What a file holds of a decoder is kept too, and what it
holds of a classifier ("classifier.head.kernel"), which no module of ours has.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxcrop.data.bands import BandInput
from jaxcrop.errors import InputError
from jaxcrop.weights.safetensors import Spec, map_file, parse_safetensors, write_safetensors
from jaxcrop.weights.stem import adapt_stem

if TYPE_CHECKING:
    from flax import nnx

    from jaxcrop.models.segmenter import Segmenter

MANIFEST_FIELDS = (
    "source", "sha256", "like", "published", "family", "layout", "architecture", "decoder",
    "in_channels", "bands", "offset", "divisor", "clip", "licence", "dropped", "filled",
    "jaxcrop_version",
)  # fmt: skip

STEMS = ("backbone.conv1.kernel", "backbone.patch_embed.kernel")
POSITIONS = "backbone.pos_embed"


def save_converted(
    path: str | Path, manifest: dict, specs: Mapping[str, Spec], arrays: Iterable[np.ndarray]
) -> None:
    """Write converted weights to the new folder `path`, whole or not at all.

    `arrays` are asked for one by one, in the order of `specs`. Raises InputError where `path`
    exists already or cannot be written.
    """
    path = Path(path).absolute()
    refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
            staging = Path(temporary) / path.name
            staging.mkdir()
            (staging / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
            with (staging / "weights.safetensors").open("wb") as file:
                write_safetensors(file, specs, arrays)
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
    bands = BandInput(
        *(tuple(manifest[field]) for field in ("bands", "offset", "divisor")), manifest["clip"]
    )
    return manifest, bands


def load_converted(path: str | Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The manifest and the tensors, by path, of converted weights; they are views of the file.

    Raises InputError for a folder that is missing, of another version of jaxcrop or damaged.
    """
    path = Path(path)
    manifest, _ = read_manifest(path)
    file = path / "weights.safetensors"
    try:
        return manifest, parse_safetensors(map_file(file))
    # Besides OSError, what damaged bytes provoke in the parser.
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{file} cannot be read: convert the weights again") from error


def load_weights(model: "Segmenter", path: str | Path, *, upsample: bool = True) -> dict:
    """Fill `model`, in place, with the converted weights in `path`; returns their manifest.

    The model may be abstract (made by `nnx.eval_shape`). Its backbone is filled, and its decoder
    with whatever the weights have of one of the same kind, without its upsampling layers unless
    `upsample`. A three-channel ImageNet stem is extended to the model's channels (weights_spec 4),
    a position embedding of another grid is resized (weights_spec 5.2). Raises InputError, naming
    both sides, unless names and shapes agree.
    """
    import jax  # noqa: PLC0415

    manifest, state = load_converted(path)
    variables = state_variables(model)
    state = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    if not all(name in variables for name in state if name.startswith("decoder.")):
        state = {name: value for name, value in state.items() if name.startswith("backbone.")}
    if not upsample:
        state = {k: value for k, value in state.items() if not k.startswith("decoder.upsample")}
    stem = next(name for name in STEMS if name in variables)
    in_channels = variables[stem].shape[2]
    if in_channels != manifest["in_channels"] and stem in state:
        if manifest["family"] != "imagenet":
            raise InputError(
                f"{path} takes {manifest['in_channels']} channels "
                f"({', '.join(manifest['bands'])}), not {in_channels}: give those bands, or use "
                "ImageNet weights"
            )
        state[stem] = adapt_stem(state[stem], in_channels)
    if POSITIONS in variables and POSITIONS in state:
        state[POSITIONS] = _fit_positions(state[POSITIONS], variables[POSITIONS].shape)
    difference = mismatch(
        {
            name: variable.shape
            for name, variable in variables.items()
            if name.startswith("backbone.") or name in state
        },
        {name: value.shape for name, value in state.items()},
    )
    if difference:
        raise InputError(f"{path} does not fit the model: it {difference}")
    for name, value in state.items():
        variables[name].set_value(jax.device_put(value))
    return manifest


def _fit_positions(embedding: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A position embedding on the grid that `shape` has, if both are square."""
    from jaxcrop.models.vit import resize_positions  # noqa: PLC0415

    grid, wanted = (round((count - 1) ** 0.5) for count in (embedding.shape[1], shape[1]))
    if grid == wanted or embedding.shape[1] != grid**2 + 1:
        return embedding
    return np.asarray(resize_positions(embedding, (wanted, wanted)))


def state_variables(module: "nnx.Module") -> "dict[str, nnx.Variable]":
    """The parameters and batch statistics of a module by their path, written "layer1.0.bn1.mean".

    Works on an abstract module (of `nnx.eval_shape`) too.
    """
    from flax import nnx  # noqa: PLC0415

    state = nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): variable for path, variable in state}


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
