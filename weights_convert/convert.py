"""PyTorch checkpoint to converted weights: every tensor used or named, every parameter filled."""

import hashlib
from pathlib import Path

import ml_dtypes
import numpy as np

from jaxcrop import __version__
from jaxcrop.crops import NUM_CLASSES
from jaxcrop.errors import InputError
from jaxcrop.weights.catalogue import file_input
from jaxcrop.weights.converted import (
    mismatch,
    part_of,
    refuse_existing,
    save_converted,
    state_variables,
    unflatten,
)
from weights_convert.names import model_tensors, recognise, tensors_by_name
from weights_convert.reader import read_checkpoint


def convert(source: str | Path, destination: str | Path, family: str | None = None) -> dict:
    """Convert the checkpoint `source` to the new folder `destination`; returns the manifest.

    `family` (ssl4eo, satlas, imagenet) decides where the file itself cannot tell. Raises
    InputError, and leaves no folder behind, where a tensor is unknown, a parameter of the model
    is missing or of another shape, a value is not finite, or `destination` exists.
    """
    source, destination = Path(source), Path(destination)
    refuse_existing(destination)
    manifest, params = convert_in_memory(source, family)
    save_converted(destination, manifest, unflatten(params))
    return manifest


def convert_in_memory(
    source: Path, family: str | None = None
) -> tuple[dict, dict[str, np.ndarray]]:
    """The manifest and the float32 state, by path, that `convert` writes."""
    tensors = tensors_by_name(read_checkpoint(source))
    sha256 = _sha256(source)
    recognised = recognise(tensors, source.name, sha256, family)
    views, dropped = model_tensors(tensors, recognised, source.name)
    difference = mismatch(
        _shapes(recognised.layout.architecture, recognised.in_channels),
        {name: view.shape for name, view in views.items()},
    )
    if difference:
        raise InputError(
            f"{source} does not fill jaxcrop's {recognised.layout.architecture}: "
            f"in our names, it {difference}"
        )
    params = {name: _as_float32(view, name, source) for name, view in views.items()}
    layout, published = recognised.layout, recognised.published
    bands = file_input(layout.family, recognised.in_channels)
    manifest = {
        "source": source.name,
        "sha256": sha256,
        "family": layout.family,
        "layout": layout.name,
        "architecture": layout.architecture,
        "in_channels": recognised.in_channels,
        "bands": list(bands.bands),
        "divisor": list(bands.divisor),
        "clip": bands.clip,
        "licence": layout.licence if published is None else published.licence,
        "dropped": dropped,
        "jaxcrop_version": __version__,
    }
    return manifest, params


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shapes(architecture: str, in_channels: int) -> dict[str, tuple[int, ...]]:
    """The shapes that our module of the architecture has, by path."""
    from jaxcrop.models.segmenter import (  # noqa: PLC0415 - `--help` need not wait for JAX
        abstract_resnet50_unet,
    )

    module = part_of(abstract_resnet50_unet(in_channels, NUM_CLASSES), architecture)
    return {name: variable.shape for name, variable in state_variables(module).items()}


def _as_float32(view: np.ndarray, name: str, source: Path) -> np.ndarray:
    if view.dtype.kind != "f" and view.dtype != ml_dtypes.bfloat16:
        raise InputError(f"{source} stores {name} as {view.dtype}, not as floating point")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(view, dtype=np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{source} holds values in {name} that are not finite in float32")
    return array
