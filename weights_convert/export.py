"""From our weights back to a file that the original libraries load with `strict=True`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcrop.errors import InputError
from jaxcrop.files import replacing
from jaxcrop.weights.converted import load_converted, shorten
from jaxcrop.weights.safetensors import Spec, write_safetensors
from weights_convert.names import (
    GRAMMARS,
    SMP_DECODER,
    Grammar,
    Part,
    Tensors,
    add_counters,
    satlas_decoder,
    to_theirs,
)

_CLASSES = 1000  # of ImageNet, which torchvision's models have unless told otherwise


@dataclass(frozen=True)
class Library:
    """How a library's files name each kind of backbone, and the decoder they may hold besides.

    `prefixes` stand before the backbone's names, `parts` are the decoder.
    """

    grammars: Mapping[str, str]
    prefixes: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()


LAYOUTS = {
    "torchgeo": Library(
        {"resnet": "timm-resnet", "vit": "timm-vit", "swin": "torchvision-swin"},
    ),
    "timm": Library({"resnet": "timm-resnet", "vit": "timm-vit", "swin": "timm-swin"}),
    "torchvision": Library(
        {"resnet": "torchvision-resnet", "vit": "torchvision-vit", "swin": "torchvision-swin"},
    ),
    "satlas": Library(
        {"resnet": "torchvision-resnet", "swin": "torchvision-swin"},
        {"resnet": "backbone.resnet.", "swin": "backbone.backbone."},
        satlas_decoder("intermediates.0.fpn.", "intermediates.1.layers."),
    ),
    "smp": Library(
        {"resnet": "timm-resnet"},
        {"resnet": "encoder."},
        SMP_DECODER,
    ),
}
"""Layouts by name.

All but two hold the backbone alone. `satlas`, the names of SatlasPretrain's own files, adds the
feature pyramid and upsampling layers of an `fpn` decoder; `smp` is a whole
`segmentation_models_pytorch.Unet`.
"""


class Exported(NamedTuple):
    """What was written, and which of it was made up or of ours left out."""

    tensors: int
    invented: list[str]
    left_out: list[str]


def export(source: str | Path, destination: str | Path, layout: str) -> Exported:
    """Write the weights of a run folder, or of a converted folder, as a PyTorch state dict.

    A run gives its best checkpoint. What the library's model needs and we have not is made up: the
    counters of its batch normalisations (0) and, where torchvision has no model without one, a
    classifier of zeros. Raises InputError for a source that is neither, or that the layout cannot
    hold, and where `destination` cannot be written.
    """
    source, destination = Path(source), Path(destination)
    architecture, state = _state(source)
    library = LAYOUTS[layout]
    kind = architecture.partition("-")[0].rstrip("0123456789")
    if kind not in library.grammars:
        fitting = [name for name, other in LAYOUTS.items() if kind in other.grammars]
        raise InputError(f"{layout} has no {architecture}: choose --layout {' or '.join(fitting)}")
    grammar = GRAMMARS[library.grammars[kind]]
    # A U-Net's encoder has no classifier; elsewhere it is written where it was kept.
    parts = grammar.parts[:1] if layout == "smp" else grammar.parts
    backbone, decoder, left_out = {}, {}, []
    for path, array in state.items():
        if found := to_theirs(parts, path, array):
            backbone[found[0]] = found[1]
        elif found := to_theirs(library.parts, path, array):
            decoder[found[0]] = found[1]
        else:
            left_out.append(path)
    if layout == "smp" and not decoder:
        raise InputError(f"{source} has no U-Net, of which --layout smp is: choose another layout")
    if lost := [path for path in left_out if path.startswith("backbone.")]:
        raise InputError(f"{grammar.name} has no place for {shorten(lost)}: choose another layout")
    invented = {} if layout == "smp" else _classifier(grammar, state, architecture)
    prefix = library.prefixes.get(kind, "")
    packed = grammar.pack(backbone | invented)
    tensors = {prefix + name: array for name, array in packed.items()} | add_counters(decoder)
    _write(destination, tensors)
    return Exported(len(tensors), sorted(prefix + name for name in invented), left_out)


def _state(source: Path) -> tuple[str, Tensors]:
    """The architecture and the state, by path, of a converted folder or a run."""
    if (source / "manifest.json").exists() or not (source / "config.yaml").exists():
        manifest, state = load_converted(source)
        return manifest["architecture"], state
    from jaxcrop.training.runs import open_run  # noqa: PLC0415 - JAX takes a second
    from jaxcrop.weights.converted import state_variables  # noqa: PLC0415

    run = open_run(source)
    variables = state_variables(run.model("best"))
    state = {path: np.asarray(variable[...]) for path, variable in variables.items()}
    return run.config.model.architecture, state


def _classifier(grammar: Grammar, state: Tensors, architecture: str) -> Tensors:
    """What the grammar cannot do without and the state has not, under the library's names."""
    missing = [rule for rule in grammar.always if f"classifier.{rule.target}" not in state]
    if not missing:
        return {}
    from jaxcrop.models.segmenter import abstract_segmenter  # noqa: PLC0415 - JAX takes a second

    width = abstract_segmenter(architecture, "linear", 1, 1).backbone.channels[-1]
    invented = {}
    for rule in missing:
        norm = rule.target.startswith("norm.")
        shape = (width,) if norm else (_CLASSES, width)[: 2 if rule.axes else 1]
        value = 1 if rule.target == "norm.scale" else 0
        invented[rule.source] = np.full(shape, value, np.float32)
    return invented


def _write(destination: Path, tensors: Tensors) -> None:
    # Wider types first, so that each tensor begins at a multiple of its type.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))
    specs = {name: Spec(array.dtype, array.shape) for name, array in ordered.items()}
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with replacing(destination) as temporary, temporary.open("wb") as file:
            arrays = (np.asarray(array, order="C") for array in ordered.values())
            write_safetensors(file, specs, arrays)
    except OSError as error:
        raise InputError(f"cannot write {destination}: {error.strerror}") from error
