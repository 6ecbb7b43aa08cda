"""Original models with random weights, and the files that the authors of the real ones write."""

import argparse
import math
from collections.abc import Mapping
from typing import Any

import torch

State = Mapping[str, torch.Tensor]


def randomise(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Give every weight, bias and running statistic of a torch module a random value, in place.

    Fresh models hide errors behind zeros and ones. Weights keep the scale of their fan-in, and the
    blocks of a ResNet add little each, as in trained ones, so that activations stay near 1 even
    after fifty blocks; running variances are positive. Returns the module in eval mode.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point() or "relative_" in name:  # constants
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.ndim > 1:
                tensor.copy_(noise / math.sqrt(tensor[0].numel()))
            elif name.endswith("weight"):
                tensor.copy_(1 + 0.2 * noise)
            else:
                tensor.copy_(0.1 * noise)
        for block in module.modules():
            if hasattr(block, "bn2") and hasattr(block, "downsample"):
                getattr(block, "bn3", block.bn2).weight.mul_(0.3)
    return module.eval()


def wrapped(state: State, wrapper: str) -> dict[str, Any]:
    """A model's state dict inside a wrapper of `weights_convert.layouts` (weights_spec 2.3, 3.2).

    What the pretraining leaves in such a file besides is there too, in small.
    """
    return {
        "plain": dict,
        "smp": dict,
        "moco": _moco,
        "dino": _dino,
        "mae": _mae,
        "satlas": _satlas,
    }[wrapper](state)


def _prefixed(state: State, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


_NUMBER = torch.ones(1)
_OPTIMIZER = {"state": {0: {"momentum_buffer": _NUMBER}}, "param_groups": [{"lr": 0.1}]}


def _moco(state: State) -> dict[str, Any]:
    """MoCo-v2 for a ResNet, MoCo-v3 for a ViT."""
    convolutional = "conv1.weight" in state
    query, key = (
        ("encoder_q", "encoder_k") if convolutional else ("base_encoder", "momentum_encoder")
    )
    projector = (
        ("fc.0.weight", "fc.2.bias") if convolutional else ("head.0.weight", "head.7.weight")
    )
    encoder = dict(state) | dict.fromkeys(projector, _NUMBER)
    rest = ["queue", "queue_ptr"] if convolutional else ["predictor.0.weight"]
    return {
        "epoch": 100,
        "arch": "any",
        "state_dict": _prefixed(encoder, f"module.{query}.")
        | _prefixed(dict.fromkeys(encoder, _NUMBER), f"module.{key}.")
        | {f"module.{name}": _NUMBER for name in rest},
        "optimizer": _OPTIMIZER,
        "scaler": {"scale": 1.0},
    }


def _dino(state: State) -> dict[str, Any]:
    """The teacher of a ResNet has batch normalisations and so was wrapped for many devices."""
    prefix = "module.backbone." if "conv1.weight" in state else "backbone."
    head = {prefix.replace("backbone", "head") + "last_layer.weight_g": _NUMBER}
    return {
        "student": _prefixed(dict.fromkeys(state, _NUMBER), "module.backbone."),
        "teacher": _prefixed(state, prefix) | head,
        "optimizer": _OPTIMIZER,
        "epoch": 100,
        "args": argparse.Namespace(arch="any", lr=0.1),
        "dino_loss": {"center": torch.ones(1, 4)},
    }


def _mae(state: State) -> dict[str, Any]:
    decoder = (
        "mask_token",
        "decoder_embed.weight",
        "decoder_blocks.0.norm1.weight",
        "decoder_pred.bias",
    )
    return {
        "model": dict(state) | dict.fromkeys(decoder, _NUMBER),
        "optimizer": _OPTIMIZER,
        "epoch": 99,
        "scaler": {"scale": 1.0},
        "args": argparse.Namespace(mask_ratio=0.7),
    }


def _satlas(state: State) -> dict[str, Any]:
    """A `satlaspretrain_models.Model` with FPN, under the names of the training code's files."""
    names = {
        "fpn.fpn.": "intermediates.0.fpn.",
        "upsample.layers.": "intermediates.1.layers.",
        "backbone.resnet.": "backbone.resnet.",
        "backbone.backbone.": "backbone.backbone.",
    }
    renamed = {"heads.0.layers.0.weight": _NUMBER}
    for name, tensor in state.items():
        start = next(start for start in names if name.startswith(start))
        renamed[names[start] + name.removeprefix(start)] = tensor
    return renamed
