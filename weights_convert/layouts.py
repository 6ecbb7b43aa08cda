"""What a checkpoint file holds: which library's model, of which size, inside which wrapper.

A published file is a model's state dict (its grammar, `weights_convert.names`) inside a wrapper: as
it is, within a training checkpoint, or within a larger model. Both are recognised from the names in
the file (weights_spec 2.3, 3.2).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxcrop.errors import InputError
from jaxcrop.weights.catalogue import CATALOGUE, PublishedWeights, published
from jaxcrop.weights.converted import shorten
from weights_convert.names import (
    GRAMMARS,
    SMP_DECODER,
    Grammar,
    Part,
    Tensors,
    satlas_decoder,
    to_ours,
)

_MAX_NAMES = 16 << 20  # bytes, of some hundred for an honest tensor
_IN = " in "
_FLAT = r"(?:(?:state_dict|model)\.)?(?:module\.)?"


@dataclass(frozen=True)
class Wrapper:
    """What surrounds a model in a file.

    `prefixes` pair a pattern at the start of a name with what takes its place in the grammar;
    `signature` is a name, after that, without which it is not this wrapper. `dropped` says which
    entries are known and why they are not used, by patterns over names in the file. `parts` and
    `decoder` are what the file holds of a decoder, `families` those of whom it can be.
    """

    name: str
    prefixes: tuple[tuple[str, str], ...]
    dropped: tuple[tuple[str, str], ...]
    signature: str | None = None
    parts: tuple[Part, ...] = ()
    decoder: str | None = None
    families: tuple[str, ...] = ("ssl4eo", "ssl4eo-l", "satlas", "imagenet")

    def reason(self, name: str) -> str | None:
        """Why an entry of the file is not used; None for one that may be."""
        return next((why for pattern, why in self.dropped if re.fullmatch(pattern, name)), None)

    def inside(self, name: str) -> str | None:
        """The name in the grammar of a name in the file; None for one outside the model."""
        for pattern, replacement in self.prefixes:
            if match := re.match(pattern, name):
                return match.expand(replacement) + name[match.end() :]
        return None


_TRAINING = (
    (r"optimizer\..+", "state of the optimiser"),
    (r"(fp16_)?scaler\..+", "state of the loss scaler"),
)
_PROJECTOR = "the projector of the pretraining"

WRAPPERS = (
    Wrapper(
        "mae",
        ((_FLAT, ""),),
        (
            *_TRAINING,
            (rf"{_FLAT}decoder_.+", "the decoder of the masked autoencoder"),
            (rf"{_FLAT}mask_token", "the token that stands for what the autoencoder masks"),
        ),
        signature="mask_token",
        families=("ssl4eo",),
    ),
    Wrapper(
        "satlas",
        (
            # The older of torchvision's two grammars has one level less.
            (
                r"intermediates\.0\.fpn\.(inner|layer)_blocks\.(\d)\.(?=weight|bias)",
                r"fpn.\1_blocks.\2.0.",
            ),
            (r"intermediates\.0\.fpn\.", "fpn."),
            (r"intermediates\.1\.layers\.", "upsample."),
            (r"(?:backbone\.){1,3}(?:resnet\.)?", ""),
        ),
        ((r"heads\..+", "a task head of the pretraining"),),
        parts=satlas_decoder("fpn.", "upsample."),
        decoder="fpn",
        families=("satlas",),
    ),
    Wrapper(
        "smp",
        tuple(
            (rf"{_FLAT}(?:model\.)?{module}\.", replacement)
            for module, replacement in (
                ("encoder", ""),
                ("decoder", "decoder."),
                ("segmentation_head", "segmentation_head."),
            )
        ),
        _TRAINING,
        signature="decoder.blocks.0.conv1.0.weight",
        parts=SMP_DECODER,
        decoder="unet",
    ),
    Wrapper(
        "moco",
        ((r"state_dict\.module\.(?:encoder_q|base_encoder)\.", ""),),
        (
            *_TRAINING,
            (r"state_dict\.module\.(encoder_q\.fc|base_encoder\.head)\.\d+\..+", _PROJECTOR),
            (r"state_dict\.module\.(encoder_k|momentum_encoder)\..+", "the momentum encoder"),
            (r"state_dict\.module\.predictor\..+", "the predictor of the pretraining"),
            (r"state_dict\.module\.queue(_ptr)?", "the queue of the contrastive pretraining"),
        ),
        families=("ssl4eo",),
    ),
    Wrapper(
        "dino",
        ((r"teacher\.(?:module\.)?backbone\.", ""),),
        (
            *_TRAINING,
            (r"student\..+", "the student of the pretraining, whose teacher is used"),
            (r"teacher\.(module\.)?head\..+", "the projection head of the pretraining"),
            (r"dino_loss\..+", "state of the pretraining loss"),
        ),
        families=("ssl4eo",),
    ),
    Wrapper("plain", ((_FLAT, ""),), (*_TRAINING, (rf"{_FLAT}(fc|head)\.\d+\..+", _PROJECTOR))),
)
"""Every wrapper, the most particular first."""

_RESNETS = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 8, 36, 3), True): "resnet152",
}
_VITS = {
    (384, 12, 16): "vit-s16",
    (768, 12, 16): "vit-b16",
    (1024, 24, 16): "vit-l16",
    (1280, 32, 14): "vit-h14",
    (384, 12, 14): "vit-s14",
    (768, 12, 14): "vit-b14",
}
_SWINS = {(96, (2, 2, 6, 2)): "swin-v2-t", (128, (2, 2, 18, 2)): "swin-v2-b"}


class Recognised(NamedTuple):
    """A file's wrapper, grammar, architecture and stem channels."""

    wrapper: Wrapper
    grammar: Grammar
    architecture: str
    in_channels: int

    @property
    def layout(self) -> str:
        """Grammar and wrapper in words."""
        plain = self.wrapper.name == "plain"
        return self.grammar.name if plain else f"{self.grammar.name}{_IN}{self.wrapper.name}"


def tensors_by_name(checkpoint: dict) -> Tensors:
    """Every tensor of a checkpoint, by the keys and indices that lead to it joined with dots.

    Raises InputError where two tensors come to the same name.
    """
    tensors: Tensors = {}
    size = 0
    for name, value in _walk("", checkpoint):
        size += 64 + len(name)
        if size > _MAX_NAMES:
            raise InputError(f"the checkpoint's names take more than {_MAX_NAMES} bytes")
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


def model_state(tensors: Tensors, source: str) -> tuple[Recognised, Tensors, dict[str, str]]:
    """What a file named `source` is, its tensors under our paths and axes, and what is left out.

    The arrays are views, save for joined biases; the last part gives the reason for each name left
    out. Raises InputError for an unknown layout or architecture, and for entries that no rule
    explains.
    """
    wrapper, grammar = _layout(tensors, source)
    inside, origin, dropped = unwrap(tensors, wrapper, source)
    try:
        unpacked, constants = grammar.unpack(inside)
    except InputError as error:
        raise InputError(f"{source} is no model of this kind: {error}") from error
    dropped |= {origin[name]: reason for name, reason in constants.items()}

    ours, unknown = {}, []
    for name, tensor in unpacked.items():
        found = to_ours((*grammar.parts, *wrapper.parts), name, tensor)
        if found is None:
            unknown.append(origin[name])
        else:
            ours[found[0]] = found[1]
    if unknown:
        raise InputError(
            f"{source} holds entries that the layout {grammar.name} does not know: "
            f"{shorten(unknown)}"
        )
    channels = _stem_channels(inside[grammar.stem], origin[grammar.stem], source)
    architecture = _architecture(grammar.kind, ours, source)
    return Recognised(wrapper, grammar, architecture, channels), ours, dropped


def published_as(
    recognised: Recognised, source: str, sha256: str, like: str | None = None
) -> tuple[PublishedWeights, bool]:
    """The published set that a file named `source` is or is like, and whether it is that very file.

    Files of one architecture and three channels look the same whoever pretrained them: then the
    SHA-256, or the name, or `like`, the name of a published set, decides. Raises InputError where
    it stays open, and where the file cannot be like that set.
    """
    wrapper, _, architecture, channels = recognised
    if like is not None:
        entry = published(like)
        # A model fine-tuned from ImageNet's weights may have the extended stem.
        fits = {entry.in_channels} | ({13} if entry.family == "imagenet" else set())
        if entry.architecture != architecture or channels not in fits:
            raise InputError(
                f"{source} is a {architecture} of {channels} channels, unlike {like} "
                f"({entry.architecture}, {entry.in_channels} channels): give another --like"
            )
        return entry, _is(entry, source, sha256)
    candidates = [
        entry
        for entry in CATALOGUE.values()
        if (entry.architecture, entry.in_channels) == (architecture, channels)
        and entry.family in wrapper.families
    ]
    for entry in candidates:
        if _is(entry, source, sha256):
            return entry, True
    if not candidates:
        raise InputError(
            f"the stem of {source} takes {channels} channels, unlike any published {architecture} "
            f"of {', '.join(wrapper.families)}"
        )
    open_to = {(entry.family, entry.band_input.bands): entry for entry in reversed(candidates)}
    if len(open_to) > 1:
        raise InputError(
            f"{source} may be of {' or '.join(sorted({family for family, _ in open_to}))}, whose "
            "files look the same: say which published set it is like, such as "
            f"{' or '.join(f'--like {entry.name}' for entry in reversed(open_to.values()))}"
        )
    return candidates[0], False


def _is(entry: PublishedWeights, source: str, sha256: str) -> bool:
    """Whether a file is the published one, by its hash or the hash in its name, or by its name."""
    if entry.sha256:
        return sha256.startswith(entry.sha256) or entry.sha256 in source
    return entry.file_name == source


class Unwrapped(NamedTuple):
    """Tensors by their names in the grammar, those names in the file, and why others are left."""

    inside: Tensors
    origin: dict[str, str]
    dropped: dict[str, str]


def unwrap(tensors: Tensors, wrapper: Wrapper, source: str) -> Unwrapped:
    """What a wrapper holds. Entries outside the model keep their names, for the grammar to refuse.

    Raises InputError where two entries come to one name.
    """
    inside, origin, dropped = {}, {}, {}
    for name, tensor in tensors.items():
        reason = wrapper.reason(name)
        if reason is not None:
            dropped[name] = reason
            continue
        known = wrapper.inside(name)
        if known in inside:
            raise InputError(f"{source} holds both {origin[known]} and {name}, one parameter")
        key = name if known is None else known
        inside[key], origin[key] = tensor, name
    return Unwrapped(inside, origin, dropped)


def parse_layout(layout: str) -> tuple[Wrapper, Grammar]:
    """The wrapper and the grammar that `Recognised.layout` names."""
    grammar, _, name = layout.partition(_IN)
    return next(w for w in WRAPPERS if w.name == (name or "plain")), GRAMMARS[grammar]


def _layout(tensors: Tensors, source: str) -> tuple[Wrapper, Grammar]:
    for wrapper in WRAPPERS:
        names = {wrapper.inside(name) for name in tensors}
        if wrapper.signature is None or wrapper.signature in names:
            for grammar in GRAMMARS.values():
                if {grammar.signature, grammar.stem} <= names:
                    return wrapper, grammar
    raise InputError(
        f"{source} has none of the known layouts ({', '.join(GRAMMARS)}, plain or in "
        f"{', '.join(wrapper.name for wrapper in WRAPPERS)}): it holds "
        f"{shorten(list(tensors)) or 'no tensors'}"
    )


def _count(ours: Tensors, prefix: str) -> int:
    """How many numbers follow `prefix` in the paths of a state."""
    pattern = re.compile(re.escape(f"backbone.{prefix}.") + r"(\d+)\.")
    return len({match[1] for path in ours if (match := pattern.match(path))})


def _architecture(kind: str, ours: Tensors, source: str) -> str:
    """The architecture whose numbers of blocks and channels the file has."""
    if kind == "resnet":
        blocks = tuple(_count(ours, f"layer{stage}") for stage in (1, 2, 3, 4))
        bottleneck = "backbone.layer1.0.conv3.kernel" in ours
        found, known = (blocks, bottleneck), _RESNETS
        words = f"a ResNet of {blocks} {'bottleneck' if bottleneck else 'basic'} blocks"
    else:
        patch, *_, width = ours["backbone.patch_embed.kernel"].shape
        if kind == "vit":
            depth = _count(ours, "blocks")
            found, known = (width, depth, patch), _VITS
            words = f"a ViT of patch {patch}, width {width} and depth {depth}"
        else:
            depths = tuple(_count(ours, f"stages.{stage}") for stage in range(4))
            found, known = (width, depths), _SWINS
            words = f"a Swin-v2 of width {width} and depths {depths}"
    if found not in known:
        raise InputError(f"{source} holds {words}: choose one of {', '.join(known.values())}")
    return known[found]


def _stem_channels(stem: np.ndarray, name: str, source: str) -> int:
    if stem.ndim != 4:
        raise InputError(f"{name} of {source} is no 2-D convolution: its shape is {stem.shape}")
    return stem.shape[1]
