"""PyTorch checkpoint to converted weights: every tensor used or named, every parameter filled."""

import hashlib
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from jaxcrop import __version__
from jaxcrop.crops import NUM_CLASSES
from jaxcrop.errors import InputError
from jaxcrop.weights.converted import (
    POSITIONS,
    mismatch,
    refuse_existing,
    save_converted,
    state_variables,
)
from jaxcrop.weights.safetensors import Spec, release
from weights_convert.layouts import Recognised, model_state, published_as, tensors_by_name
from weights_convert.names import Tensors
from weights_convert.reader import read_checkpoint

_FINAL_NORM = {"backbone.norm.scale": 1.0, "backbone.norm.bias": 0.0}
_COLUMNS = 8
_PIECE = 16 << 20
_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Conversion:
    """What a checkpoint becomes: its manifest, and views of its tensors under our paths and axes.

    The views keep the file's types; `float32` gives what is written.
    """

    source: Path
    manifest: dict
    tensors: Tensors

    def float32(self, name: str) -> np.ndarray:
        """A tensor as it is written. Raises InputError where a value is not finite in float32."""
        view = self.tensors[name]
        if view.dtype.kind != "f" and view.dtype != ml_dtypes.bfloat16:
            raise InputError(f"{self.source} stores {name} as {view.dtype}, not as floating point")
        with np.errstate(over="ignore"):
            array = _in_order(view)
        release(view)
        if not np.isfinite(array).all():
            raise InputError(f"{self.source} holds values in {name} that are not finite in float32")
        return array


def _in_order(view: np.ndarray) -> np.ndarray:
    """A contiguous float32 copy, made so that what is read and what is written fit the cache."""
    if view.ndim < 2:
        return np.array(view, np.float32)
    array = np.empty(view.shape, np.float32)
    for first in range(0, view.shape[-1], _COLUMNS):  # PyTorch's first axis, and so far apart
        columns = np.s_[..., first : first + _COLUMNS]
        array[columns] = view[columns]
    return array


def convert(source: str | Path, destination: str | Path, like: str | None = None) -> dict:
    """Convert the checkpoint `source` to the new folder `destination`; returns the manifest.

    `like`, the name of a published set, says what the file is like where it cannot tell. Raises
    InputError, and leaves no folder behind, where a tensor is unknown, a parameter of the model
    is missing or of another shape, a value is not finite, or `destination` exists.
    """
    source, destination = Path(source), Path(destination)
    refuse_existing(destination)
    conversion = plan(source, like)
    specs = {name: Spec(_FLOAT32, view.shape) for name, view in conversion.tensors.items()}
    save_converted(destination, conversion.manifest, specs, map(conversion.float32, specs))
    return conversion.manifest


def plan(source: Path, like: str | None = None) -> Conversion:
    """What `convert` writes, before it is written. Raises InputError as `convert` does."""
    with ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(_sha256, source)
        tensors = tensors_by_name(read_checkpoint(source))
        recognised, ours, dropped = model_state(tensors, source.name)
        expected = _expected_shapes(recognised, ours)
        sha256 = hashing.result()
    entry, exact = published_as(recognised, source.name, sha256, like)
    filled = {}
    if recognised.grammar.kind == "vit":
        for name, value in _FINAL_NORM.items():
            if name not in ours:
                ours[name] = np.full(expected[name], value, np.float32)
                filled[name] = f"{value:g}, as a fresh model has it: the file has no final norm"
    difference = mismatch(
        expected,
        {name: view.shape for name, view in ours.items() if not name.startswith("classifier.")},
    )
    if difference:
        raise InputError(
            f"{source} does not fill jaxcrop's {recognised.architecture}: "
            f"in our names, it {difference}"
        )
    bands = entry.band_input
    manifest = {
        "source": source.name,
        "sha256": sha256,
        "like": entry.name,
        "published": exact,
        "family": entry.family,
        "layout": recognised.layout,
        "architecture": recognised.architecture,
        "decoder": recognised.wrapper.decoder,
        "in_channels": recognised.in_channels,
        "bands": list(bands.bands),
        "offset": list(bands.offset),
        "divisor": list(bands.divisor),
        "clip": bands.clip,
        "licence": entry.licence,
        "dropped": dropped,
        "filled": filled,
        "jaxcrop_version": __version__,
    }
    return Conversion(source, manifest, ours)


def _sha256(path: Path) -> str:
    """The hash of a file, in few pieces: between two, another thread may keep this one waiting."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        buffer = bytearray(_PIECE)
        while size := file.readinto(buffer):
            digest.update(memoryview(buffer)[:size])
    return digest.hexdigest()


def _expected_shapes(recognised: Recognised, ours: Tensors) -> Mapping[str, tuple[int, ...]]:
    """The shapes that our modules have for what the file should hold, by path."""
    from jaxcrop.models.segmenter import abstract_segmenter  # noqa: PLC0415 - JAX takes a second

    decoder = recognised.wrapper.decoder
    model = abstract_segmenter(
        recognised.architecture, decoder or "linear", recognised.in_channels, NUM_CLASSES
    )
    parts = ["backbone.", *(part.target for part in recognised.wrapper.parts)]
    expected = {
        name: variable.shape
        for name, variable in state_variables(model).items()
        if name.startswith(tuple(parts))
    }
    if POSITIONS in ours and POSITIONS in expected:
        # The embedding of any square grid is taken as it is, and resized where it is used.
        tokens = ours[POSITIONS].shape[1] if ours[POSITIONS].ndim == 3 else 0
        if tokens > 1 and math.isqrt(tokens - 1) ** 2 == tokens - 1:
            expected[POSITIONS] = (1, tokens, expected[POSITIONS][2])
    return expected
