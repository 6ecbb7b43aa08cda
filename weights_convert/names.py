"""Which published layout a file has, and what its names are called in our modules.

A layout is a row of `LAYOUTS`, a name rule a row of a table such as `RESNET`: templates on both
sides, so that the rules can be read in either direction.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxcrop.errors import InputError
from jaxcrop.weights.catalogue import CATALOGUE, PublishedWeights
from jaxcrop.weights.converted import shorten

_MAX_VALUES = 1_000_000


@dataclass(frozen=True)
class Rule:
    """A PyTorch name and our path for it; `axes` turn the array from PyTorch's order to ours.

    Braces hold the parts that both sides share, described in `_PARTS`.
    """

    source: str
    target: str
    axes: tuple[int, ...] | None = None


_PARTS = {"block": r"(?:layer[1-4]\.\d+\.)?", "n": "[1-3]", "level": "[0-4]"}
_OIHW_TO_HWIO = (2, 3, 1, 0)


def _convolution(source: str, target: str) -> Rule:
    return Rule(f"{source}.weight", f"{target}.kernel", _OIHW_TO_HWIO)


def _batch_norm(source: str, target: str) -> tuple[Rule, ...]:
    names = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    return tuple(Rule(f"{source}.{theirs}", f"{target}.{ours}") for theirs, ours in names.items())


RESNET = (
    _convolution("{block}conv{n}", "{block}conv{n}"),
    *_batch_norm("{block}bn{n}", "{block}bn{n}"),
    _convolution("{block}downsample.0", "{block}downsample.conv"),
    *_batch_norm("{block}downsample.1", "{block}downsample.bn"),
)
"""timm's and torchvision's ResNets, whose names agree (weights_spec 5.1)."""

UNET = tuple(
    rule
    for layer in (
        (_convolution("blocks.{level}.conv{n}.0", "blocks.{level}.conv{n}.conv"),),
        _batch_norm("blocks.{level}.conv{n}.1", "blocks.{level}.conv{n}.bn"),
    )
    for rule in layer
)
HEAD = (_convolution("0", "head"), Rule("0.bias", "head.bias"))
"""The decoder and the head of `segmentation_models_pytorch.Unet` (weights_spec 5.5)."""

# What a backbone or a checkpoint holds besides the backbone's parameters: pattern and reason.
_IN_MODEL = (
    (r"(.+\.)?num_batches_tracked", "a counter that Flax's batch statistics do not have"),
    (r"fc\..+", "the classifier or projector on top, not used for dense prediction"),
)
_TRAINING = (
    (r"optimizer\..+", "state of the optimiser"),
    (r"(fp16_)?scaler\..+", "state of the loss scaler"),
)
_MOCO = (
    (r"state_dict\.module\.encoder_k\..+", "the momentum encoder of the pretraining"),
    (r"state_dict\.module\.queue(_ptr)?", "the queue of the contrastive pretraining"),
)
_DINO = (
    (r"student\..+", "the student of the pretraining, whose teacher is used"),
    (r"teacher\.(module\.)?head\..+", "the projection head of the pretraining"),
    (r"dino_loss\..+", "state of the pretraining loss"),
)
_SATLAS = (
    (r"intermediates\.0\.fpn\..+", "the feature pyramid network, not part of the backbone"),
    (r"intermediates\.1\..+", "the upsampling layers, not part of the backbone"),
    (r"heads\..+", "a task head of the pretraining"),
)


class Part(NamedTuple):
    """A module of a model: what stands before its names in a file and in ours, and its rules."""

    source: str
    target: str
    rules: tuple[Rule, ...]


_BACKBONE = (Part("", "", RESNET),)
_SEGMENTER = (
    Part("encoder.", "backbone.", RESNET),
    Part("decoder.", "decoder.", UNET),
    Part("segmentation_head.", "decoder.", HEAD),
)


@dataclass(frozen=True)
class Layout:
    """One way in which a family's files are laid out.

    `prefix` (a pattern) stands before the model's names, once nested dictionaries are joined with
    dots; `dropped` says which entries elsewhere are known and why they are not used. `parts` are
    the modules of the model, the backbone first, and `architecture` what they make up.
    """

    name: str
    family: str
    prefix: str
    in_channels: tuple[int, ...]
    licence: str
    dropped: tuple[tuple[str, str], ...] = ()
    architecture: str = "resnet50"
    parts: tuple[Part, ...] = _BACKBONE

    @property
    def stem(self) -> str:
        """Name of the backbone's first convolution behind the prefix."""
        return f"{self.parts[0].source}conv1.weight"


_FLAT = r"((state_dict|model)\.)?(module\.)?"

LAYOUTS = (
    Layout("torchgeo-ssl4eo-resnet50", "ssl4eo", _FLAT, (13, 3), "CC-BY-4.0", _TRAINING),
    Layout(
        "ssl4eo-moco-resnet50",
        "ssl4eo",
        r"state_dict\.module\.encoder_q\.",
        (13, 3),
        "CC-BY-4.0",
        _TRAINING + _MOCO,
    ),
    Layout(
        "ssl4eo-dino-resnet50",
        "ssl4eo",
        r"teacher\.(module\.)?backbone\.",
        (13, 3),
        "CC-BY-4.0",
        _TRAINING + _DINO,
    ),
    Layout("torchgeo-satlas-resnet50", "satlas", _FLAT, (9, 3), "ODC-BY", _TRAINING),
    Layout(
        "satlaspretrain-resnet50",
        "satlas",
        r"(backbone\.){1,2}resnet\.",
        (9, 3),
        "ODC-BY",
        _SATLAS,
    ),
    # torchvision and timm write the same names, so the file cannot tell which of them it is from.
    Layout(
        "torchvision-or-timm-resnet50",
        "imagenet",
        _FLAT,
        (3,),
        "BSD-3-Clause (torchvision) or Apache-2.0 (timm)",
        _TRAINING,
    ),
    # A model that somebody trained with segmentation_models_pytorch on a family's backbone.
    *(
        Layout(
            "smp-unet-resnet50",
            family,
            r"((state_dict|model)\.)*(module\.)?",
            in_channels,
            "that of whoever trained the model",
            _TRAINING,
            "resnet50-unet",
            _SEGMENTER,
        )
        for family, in_channels in (("ssl4eo", (13,)), ("satlas", (9,)), ("imagenet", (13, 3)))
    ),
)

# Other architectures, to be called by name: a name they have, one they lack, and what they are.
_FOREIGN = (
    (r"layer1\.0\.conv2\.weight", r"conv3\.weight", "a ResNet-18 or ResNet-34"),
    (r"layer3\.6\.conv1\.weight", None, "a ResNet-101 or ResNet-152"),
    (r"relative_position_index|relative_coords_table|logit_scale", None, "a Swin transformer"),
    (
        r"(cls_token|class_token|blocks\.0\.attn\.qkv\.weight|patch_embed\..+)",
        None,
        "a vision transformer",
    ),
)
_IMAGENET_CLASSIFIER = (1000, 2048)


class Recognised(NamedTuple):
    """The layout of a file, the prefix it uses, its channels and, if known, the published set."""

    layout: Layout
    prefix: str
    in_channels: int
    published: PublishedWeights | None


def tensors_by_name(checkpoint: dict) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint, by the keys and indices that lead to it joined with dots.

    Raises InputError where two tensors come to the same name.
    """
    tensors: dict[str, np.ndarray] = {}
    for count, (name, value) in enumerate(_walk("", checkpoint)):
        if count > _MAX_VALUES:
            raise InputError(f"the checkpoint refers to more than {_MAX_VALUES} values")
        if isinstance(value, np.ndarray):
            if name in tensors:
                raise InputError(f"the checkpoint holds two tensors that come to the name {name}")
            tensors[name] = value
    return tensors


def _walk(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    yield name, value
    children = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    for key, child in children:
        yield from _walk(f"{name}.{key}" if name else str(key), child)


def recognise(
    tensors: dict[str, np.ndarray], source: str, sha256: str, family: str | None = None
) -> Recognised:
    """Find the layout of a file named `source` from its tensors.

    A three-channel file of plain names may be of any family: then the catalogue decides, by the
    file's SHA-256 or the hash in its name, or an ImageNet classifier does. Raises InputError for
    an unknown layout, another architecture, or a family that stays open without `family`.
    """
    layouts = [layout for layout in LAYOUTS if family in (None, layout.family)]
    if not layouts:
        families = sorted({layout.family for layout in LAYOUTS})
        raise InputError(f"unknown family {family}: choose {', '.join(families)}")
    _refuse_foreign(tensors, source)
    found = [(layout, prefix) for layout in layouts for prefix in _prefixes(layout, tensors)]
    if not found:
        raise InputError(
            f"{source} has none of the known layouts ({', '.join(row.name for row in layouts)}): "
            f"it holds {shorten(list(tensors)) or 'no tensors'}"
        )
    stems = [prefix + layout.stem for layout, prefix in found]
    channels = {stem: _stem_channels(tensors[stem], stem, source) for stem in stems}
    fitting = [
        row for row, stem in zip(found, stems, strict=True) if channels[stem] in row[0].in_channels
    ]
    if not fitting:
        raise InputError(
            f"the stem of {source} takes {sorted(set(channels.values()))[0]} channels, unlike any "
            f"file of {' or '.join(sorted({layout.family for layout, _ in found}))}"
        )
    published = _published(source, sha256)
    if len(fitting) > 1 and published is not None:
        fitting = [row for row in fitting if row[0].family == published.family]
    elif len(fitting) > 1:
        fitting = [row for row in fitting if _has_imagenet_classifier(tensors, *row)] or fitting
    if len(fitting) != 1:
        families = sorted({layout.family for layout, _ in fitting or found})
        raise InputError(
            f"{source} may be of {' or '.join(families)}, whose files look the same: "
            "say which with --family"
        )
    layout, prefix = fitting[0]
    if published is not None and published.family != layout.family:
        published = None
    return Recognised(layout, prefix, channels[prefix + layout.stem], published)


def _refuse_foreign(tensors: dict[str, np.ndarray], source: str):
    for present, absent, description in _FOREIGN:
        has = any(re.search(rf"(^|\.)({present})$", name) for name in tensors)
        if has and not any(absent and re.search(rf"\.{absent}$", name) for name in tensors):
            raise InputError(f"{source} holds {description}, not a ResNet-50")


def _prefixes(layout: Layout, tensors: dict[str, np.ndarray]) -> list[str]:
    stems = (name for name in tensors if name.endswith(layout.stem))
    prefixes = (name.removesuffix(layout.stem) for name in stems)
    return [prefix for prefix in prefixes if re.fullmatch(layout.prefix, prefix)]


def _stem_channels(stem: np.ndarray, name: str, source: str) -> int:
    if stem.ndim != 4:
        raise InputError(f"{name} of {source} is no 2-D convolution: its shape is {stem.shape}")
    return stem.shape[1]


def _published(source: str, sha256: str) -> PublishedWeights | None:
    by_content = [entry for entry in CATALOGUE.values() if sha256.startswith(entry.sha256)]
    by_name = [entry for entry in CATALOGUE.values() if entry.sha256 in source]
    return next(iter(by_content + by_name), None)


def _has_imagenet_classifier(tensors: dict[str, np.ndarray], layout: Layout, prefix: str) -> bool:
    classifier = tensors.get(f"{prefix}fc.weight")
    return (
        layout.family == "imagenet"
        and classifier is not None
        and classifier.shape == _IMAGENET_CLASSIFIER
    )


def model_tensors(
    tensors: dict[str, np.ndarray], recognised: Recognised, source: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The model's tensors under our paths and axes, and the reason for each name left out.

    The arrays are views. Raises InputError listing the names that no rule of the layout explains.
    """
    layout, prefix, *_ = recognised
    used, dropped, unknown = {}, {}, []
    for name, tensor in tensors.items():
        inside = name.startswith(prefix)
        target = _target(layout, name.removeprefix(prefix), tensor) if inside else None
        reason = _reason(name.removeprefix(prefix), _IN_MODEL) if inside else None
        reason = reason or _reason(name, layout.dropped)
        if target is not None:
            path, used[path] = target[0], target[1]
        elif reason is not None:
            dropped[name] = reason
        else:
            unknown.append(name)
    if unknown:
        raise InputError(
            f"{source} holds entries that the layout {layout.name} does not know: "
            f"{shorten(unknown)}"
        )
    return used, dropped


def _target(layout: Layout, name: str, tensor: np.ndarray) -> tuple[str, np.ndarray] | None:
    for part in layout.parts:
        for rule in part.rules:
            if match := re.fullmatch(_pattern(part.source, rule.source), name):
                turn = rule.axes is not None and len(rule.axes) == tensor.ndim
                return part.target + rule.target.format(**match.groupdict()), (
                    tensor.transpose(rule.axes) if turn else tensor
                )
    return None


@functools.cache
def _pattern(prefix: str, template: str) -> str:
    """The regular expression of a template behind `prefix`, its braces as named groups."""
    pieces = re.split(r"\{(\w+)\}", template)
    return re.escape(prefix) + "".join(
        f"(?P<{piece}>{_PARTS[piece]})" if index % 2 else re.escape(piece)
        for index, piece in enumerate(pieces)
    )


def _reason(name: str, table: tuple[tuple[str, str], ...]) -> str | None:
    return next((reason for pattern, reason in table if re.fullmatch(pattern, name)), None)
