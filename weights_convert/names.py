"""What PyTorch's libraries call the parameters of a model, and what we call them.

A rule is a row of a table such as `RESNET`: a template on either side, so that the tables are read
in both directions. A grammar is the tables of one library's model, with what besides renaming it
takes to get from its state dict to ours and back.
"""

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from jaxcrop.errors import InputError

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rule:
    """A PyTorch name and our path for it; `axes` turn the array from PyTorch's order to ours.

    Braces hold the parts that both sides share, described in `_PIECES`.
    """

    source: str
    target: str
    axes: tuple[int, ...] | None = None


_PIECES = {"block": r"(?:layer[1-4]\.\d+\.)?", "n": "[1-3]", "i": r"\d+", "s": "[0-3]"}
_OIHW_TO_HWIO = (2, 3, 1, 0)
_IOHW_TO_HWIO = (2, 3, 0, 1)


def _kernel(source: str, target: str, axes: tuple[int, ...] = _OIHW_TO_HWIO) -> Rule:
    return Rule(f"{source}.weight", f"{target}.kernel", axes)


def _with_bias(kernel: Rule) -> tuple[Rule, Rule]:
    source, target = kernel.source.removesuffix("weight"), kernel.target.removesuffix("kernel")
    return kernel, Rule(f"{source}bias", f"{target}bias")


def _convolution(source: str, target: str) -> tuple[Rule, Rule]:
    return _with_bias(_kernel(source, target))


def _linear(source: str, target: str) -> tuple[Rule, Rule]:
    return _with_bias(_kernel(source, target, (1, 0)))


def _norm(source: str, target: str) -> tuple[Rule, Rule]:
    return Rule(f"{source}.weight", f"{target}.scale"), Rule(f"{source}.bias", f"{target}.bias")


def _batch_norm(source: str, target: str) -> tuple[Rule, ...]:
    statistics = {"running_mean": "mean", "running_var": "var"}
    return _norm(source, target) + tuple(
        Rule(f"{source}.{theirs}", f"{target}.{ours}") for theirs, ours in statistics.items()
    )


RESNET = (
    _kernel("{block}conv{n}", "{block}conv{n}"),
    *_batch_norm("{block}bn{n}", "{block}bn{n}"),
    _kernel("{block}downsample.0", "{block}downsample.conv"),
    *_batch_norm("{block}downsample.1", "{block}downsample.bn"),
)
"""timm's and torchvision's ResNets, whose names agree (weights_spec 5.1)."""

TIMM_VIT = (
    Rule("cls_token", "cls_token"),
    Rule("pos_embed", "pos_embed"),
    *_convolution("patch_embed.proj", "patch_embed"),
    *_norm("blocks.{i}.norm{n}", "blocks.{i}.norm{n}"),
    *_linear("blocks.{i}.attn.qkv", "blocks.{i}.attn.qkv"),
    *_linear("blocks.{i}.attn.proj", "blocks.{i}.attn.proj"),
    *_linear("blocks.{i}.mlp.fc{n}", "blocks.{i}.mlp.fc{n}"),
    Rule("blocks.{i}.ls{n}.gamma", "blocks.{i}.ls{n}.gamma"),
    *_norm("norm", "norm"),
)
"""timm's vision transformers (weights_spec 5.2)."""

_ENCODER = "encoder.layers.encoder_layer_{i}"
TORCHVISION_VIT = (
    Rule("class_token", "cls_token"),
    Rule("encoder.pos_embedding", "pos_embed"),
    *_convolution("conv_proj", "patch_embed"),
    *_norm(f"{_ENCODER}.ln_{{n}}", "blocks.{i}.norm{n}"),
    Rule(f"{_ENCODER}.self_attention.in_proj_weight", "blocks.{i}.attn.qkv.kernel", (1, 0)),
    Rule(f"{_ENCODER}.self_attention.in_proj_bias", "blocks.{i}.attn.qkv.bias"),
    *_linear(f"{_ENCODER}.self_attention.out_proj", "blocks.{i}.attn.proj"),
    *_linear(f"{_ENCODER}.mlp.0", "blocks.{i}.mlp.fc1"),
    *_linear(f"{_ENCODER}.mlp.3", "blocks.{i}.mlp.fc2"),
    *_norm("encoder.ln", "norm"),
)
"""torchvision's vision transformers, whose attention is `torch.nn.MultiheadAttention`."""


def _swin_block(source: str, target: str, mlp: tuple[str, str]) -> tuple[Rule, ...]:
    return (
        *_norm(f"{source}.norm{{n}}", f"{target}.norm{{n}}"),
        Rule(f"{source}.attn.logit_scale", f"{target}.attn.logit_scale"),
        *_linear(f"{source}.attn.qkv", f"{target}.attn.qkv"),
        *_linear(f"{source}.attn.proj", f"{target}.attn.proj"),
        *_linear(f"{source}.attn.cpb_mlp.0", f"{target}.attn.cpb_mlp.fc1"),
        _kernel(f"{source}.attn.cpb_mlp.2", f"{target}.attn.cpb_mlp.fc2", (1, 0)),
        *_linear(f"{source}.mlp.{mlp[0]}", f"{target}.mlp.fc1"),
        *_linear(f"{source}.mlp.{mlp[1]}", f"{target}.mlp.fc2"),
    )


def _swin_merge(source: str, target: str) -> tuple[Rule, ...]:
    return _kernel(f"{source}.reduction", f"{target}.reduction", (1, 0)), *_norm(
        f"{source}.norm", f"{target}.norm"
    )


TORCHVISION_SWIN = (
    *_convolution("features.0.0", "patch_embed"),
    *_norm("features.0.2", "patch_norm"),
    *(
        rule
        for stage in range(4)
        for rule in _swin_block(
            f"features.{2 * stage + 1}.{{i}}", f"stages.{stage}.{{i}}", ("0", "3")
        )
    ),
    *(rule for k in range(3) for rule in _swin_merge(f"features.{2 * k + 2}", f"merges.{k}")),
)
"""torchvision's Swin-v2, of which `features` alternates stages and mergings (weights_spec 5.3)."""

TIMM_SWIN = (
    *_convolution("patch_embed.proj", "patch_embed"),
    *_norm("patch_embed.norm", "patch_norm"),
    *_swin_block("layers.{s}.blocks.{i}", "stages.{s}.{i}", ("fc1", "fc2")),
    *(rule for k in range(3) for rule in _swin_merge(f"layers.{k + 1}.downsample", f"merges.{k}")),
)
"""timm's Swin-v2, whose mergings begin the stages 1 to 3 (weights_spec 4)."""

UNET = (
    _kernel("blocks.{i}.conv{n}.0", "blocks.{i}.conv{n}.conv"),
    *_batch_norm("blocks.{i}.conv{n}.1", "blocks.{i}.conv{n}.bn"),
)
UNET_HEAD = _convolution("0", "head")
"""The decoder and the head of `segmentation_models_pytorch.Unet` (weights_spec 5.5)."""

FPN = (
    *_convolution("inner_blocks.{i}.0", "inner.{i}"),
    *_convolution("layer_blocks.{i}.0", "layer.{i}"),
)
UPSAMPLE = (
    *_convolution("{i}.0", "{i}.conv"),
    *_with_bias(_kernel("{i}.2", "{i}.transpose", _IOHW_TO_HWIO)),
)
"""SatlasPretrain's feature pyramid and upsampling layers (weights_spec 5.4)."""


class Part(NamedTuple):
    """A module of a model: what stands before its names in a file and in ours, and its rules."""

    source: str
    target: str
    rules: tuple[Rule, ...]


SMP_DECODER = (
    Part("decoder.", "decoder.", UNET),
    Part("segmentation_head.", "decoder.", UNET_HEAD),
)
"""What a `segmentation_models_pytorch.Unet` holds besides its encoder."""


def satlas_decoder(fpn: str, upsample: str) -> tuple[Part, Part]:
    """What SatlasPretrain's models hold besides the backbone, behind these two prefixes."""
    return Part(fpn, "decoder.fpn.", FPN), Part(upsample, "decoder.upsample.", UPSAMPLE)


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    """The regular expression of a template, its braces as named groups."""
    pieces = re.split(r"\{(\w+)\}", template)
    return re.compile(
        "".join(
            f"(?P<{piece}>{_PIECES[piece]})" if index % 2 else re.escape(piece)
            for index, piece in enumerate(pieces)
        )
    )


def to_ours(parts: Iterable[Part], name: str, tensor: np.ndarray) -> tuple[str, np.ndarray] | None:
    """Our path and axes for a tensor of a file, as a view; None where no rule fits its name."""
    for part in parts:
        for rule in part.rules if name.startswith(part.source) else ():
            if match := _pattern(rule.source).fullmatch(name, len(part.source)):
                # A tensor of other dimensions keeps its own: its shape is then refused by name.
                turn = rule.axes is not None and len(rule.axes) == tensor.ndim
                path = part.target + rule.target.format(**match.groupdict())
                return path, tensor.transpose(rule.axes) if turn else tensor
    return None


def to_theirs(parts: Iterable[Part], path: str, array: np.ndarray) -> tuple[str, np.ndarray] | None:
    """The inverse of `to_ours`."""
    for part in parts:
        for rule in part.rules if path.startswith(part.target) else ():
            if match := _pattern(rule.target).fullmatch(path, len(part.target)):
                name = part.source + rule.source.format(**match.groupdict())
                return name, array if rule.axes is None else array.transpose(np.argsort(rule.axes))
    return None


@dataclass(frozen=True)
class Grammar:
    """The state dict of one library's model.

    `signature` is a name that only this grammar has, `stem` the first convolution. `parts` are the
    backbone and the classifier (our paths `backbone.` and `classifier.`, which no module of ours
    has: it is kept for the way back). `unpack` takes what renaming cannot express out of a state
    dict, giving the reasons for entries that it leaves out; `pack` puts it in again. `always` names
    those of `classifier` that the library's model cannot do without.
    """

    name: str
    signature: str
    stem: str
    parts: tuple[Part, ...]
    unpack: Callable[[Tensors], tuple[Tensors, dict[str, str]]]
    pack: Callable[[Tensors], Tensors]
    always: tuple[Rule, ...] = ()

    @property
    def kind(self) -> str:
        """resnet, vit or swin."""
        return self.name.rpartition("-")[2]


def _parts(backbone: tuple[Rule, ...], classifier: tuple[Rule, ...]) -> tuple[Part, ...]:
    return Part("", "backbone.", backbone), Part("", "classifier.", classifier)


_COUNTER = "num_batches_tracked"


def _drop_counters(tensors: Tensors) -> tuple[Tensors, dict[str, str]]:
    counters = [name for name in tensors if name.endswith(_COUNTER)]
    kept = {name: tensor for name, tensor in tensors.items() if name not in set(counters)}
    return kept, dict.fromkeys(counters, "a counter that Flax's batch statistics do not have")


def add_counters(tensors: Tensors) -> Tensors:
    """A state dict with PyTorch's counter of batches (0) behind every batch normalisation."""
    counted = {}
    for name, tensor in tensors.items():
        counted[name] = tensor
        if name.endswith("running_var"):
            counted[name.removesuffix("running_var") + _COUNTER] = np.zeros((), np.int64)
    return counted


def _nothing_dropped(tensors: Tensors) -> tuple[Tensors, dict[str, str]]:
    return tensors, {}


def _nothing_added(tensors: Tensors) -> Tensors:
    return tensors


def _rename_linear(tensors: Tensors) -> tuple[Tensors, dict[str, str]]:
    """Torchvision's older names of an MLP's layers as its newer ones."""
    newer = {".mlp.linear_1.": ".mlp.0.", ".mlp.linear_2.": ".mlp.3."}
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in newer.items():
            name = name.replace(old, new)  # noqa: PLW2901
        renamed[name] = tensor
    return renamed, {}


def _swin_tables() -> Tensors:
    from jaxcrop.models.swin import (  # noqa: PLC0415 - `--help` need not wait for JAX
        relative_coords_table,
        relative_position_index,
    )

    return {
        "relative_coords_table": relative_coords_table(),
        "relative_position_index": relative_position_index(),
    }


def _check_tables(tensors: Tensors) -> tuple[Tensors, dict[str, str]]:
    """Take torchvision's two constants out, which must be those that our module computes."""
    kept, dropped, tables = {}, {}, _swin_tables()
    for name, tensor in tensors.items():
        table = name.rpartition(".")[2]
        if table not in tables:
            kept[name] = tensor
            continue
        if tensor.shape != tables[table].shape or not np.allclose(tensor, tables[table], atol=1e-6):
            raise InputError(
                f"{name} is not that of a window of 8 x 8 without rescaling, which alone is known"
            )
        dropped[name] = "a constant that our module computes, found equal"
    return kept, dropped


def _add_tables(tensors: Tensors) -> Tensors:
    complete, tables = {}, _swin_tables()
    for name, tensor in tensors.items():
        complete[name] = tensor
        if name.endswith(".logit_scale"):
            prefix = name.removesuffix("logit_scale")
            complete |= {prefix + table: value for table, value in tables.items()}
    return complete


def _join_biases(tensors: Tensors) -> tuple[Tensors, dict[str, str]]:
    """Timm's biases of queries and values as one, where that of keys is zero as it is computed."""
    joined = {}
    for name, tensor in tensors.items():
        attention, _, bias = name.rpartition(".")
        if bias == "q_bias" and f"{attention}.v_bias" in tensors:
            value = tensors[f"{attention}.v_bias"]
            joined[f"{attention}.qkv.bias"] = np.concatenate([tensor, np.zeros_like(tensor), value])
        elif bias != "v_bias" or f"{attention}.q_bias" not in tensors:
            joined[name] = tensor
    return joined, {}


def _split_biases(tensors: Tensors) -> Tensors:
    split = {}
    for name, tensor in tensors.items():
        if name.endswith(".attn.qkv.bias"):
            query, _, value = np.split(tensor, 3)
            attention = name.removesuffix("qkv.bias")
            split |= {f"{attention}q_bias": query, f"{attention}v_bias": value}
        else:
            split[name] = tensor
    return split


_FC, _HEAD = _linear("fc", "head"), _linear("head", "head")
_TIMM_RESNET = Grammar(
    "timm-resnet",
    signature="layer1.0.conv1.weight",
    stem="conv1.weight",
    parts=_parts(RESNET, _FC),
    unpack=_drop_counters,
    pack=add_counters,
)
GRAMMARS = {
    grammar.name: grammar
    for grammar in (
        _TIMM_RESNET,
        replace(_TIMM_RESNET, name="torchvision-resnet", always=_FC),
        Grammar(
            "timm-vit",
            signature="blocks.0.attn.qkv.weight",
            stem="patch_embed.proj.weight",
            parts=_parts(TIMM_VIT, _HEAD),
            unpack=_nothing_dropped,
            pack=_nothing_added,
        ),
        Grammar(
            "torchvision-vit",
            signature="conv_proj.weight",
            stem="conv_proj.weight",
            parts=_parts(TORCHVISION_VIT, _linear("heads.head", "head")),
            unpack=_rename_linear,
            pack=_nothing_added,
            always=_linear("heads.head", "head"),
        ),
        Grammar(
            "timm-swin",
            signature="layers.0.blocks.0.attn.logit_scale",
            stem="patch_embed.proj.weight",
            parts=_parts(TIMM_SWIN, (*_linear("head.fc", "head"), *_norm("norm", "norm"))),
            unpack=_join_biases,
            pack=_split_biases,
            always=_norm("norm", "norm"),
        ),
        Grammar(
            "torchvision-swin",
            signature="features.1.0.attn.logit_scale",
            stem="features.0.0.weight",
            parts=_parts(TORCHVISION_SWIN, (*_HEAD, *_norm("norm", "norm"))),
            unpack=_check_tables,
            pack=_add_tables,
            always=(*_HEAD, *_norm("norm", "norm")),
        ),
    )
}
"""Every grammar by name; timm's and torchvision's ResNets look the same, so the first is found."""
