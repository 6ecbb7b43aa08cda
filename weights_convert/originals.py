"""The original libraries' models: made, asked for their maps, filled from a file.

Needs the `torch` extra, which is imported where it is used.
"""

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxcrop.crops import NUM_CLASSES
from jaxcrop.errors import InputError
from jaxcrop.weights.converted import shorten
from weights_convert.names import Tensors

if TYPE_CHECKING:
    import torch

_TIMM = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "resnet152": "resnet152",
    "vit-s16": "vit_small_patch16_224",
    "vit-b16": "vit_base_patch16_224",
    "vit-l16": "vit_large_patch16_224",
    "vit-h14": "vit_huge_patch14_224",
    "vit-s14": "vit_small_patch14_dinov2",
    "vit-b14": "vit_base_patch14_dinov2",
    "swin-v2-t": "swinv2_tiny_window8_256",
    "swin-v2-b": "swinv2_base_window8_256",
}
_TORCHVISION = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "resnet152": "resnet152",
    "vit-b16": "vit_b_16",
    "vit-l16": "vit_l_16",
    "swin-v2-t": "swin_v2_t",
    "swin-v2-b": "swin_v2_b",
}
_SATLAS = {
    "resnet50": "RESNET50",
    "resnet152": "RESNET152",
    "swin-v2-t": "SWINT",
    "swin-v2-b": "SWINB",
}


class Original(NamedTuple):
    """A model of the original library, and how it is asked for its maps (NCHW, finest first).

    `prefixes` pair the start of a name in a file's grammar with what it is in the module.
    """

    module: "torch.nn.Module"
    stages: Callable[["torch.Tensor"], list["torch.Tensor"]]
    prefixes: tuple[tuple[str, str], ...] = ()

    def name(self, inside: str) -> str:
        """The module's name for one of the grammar."""
        for start, replacement in self.prefixes:
            if inside.startswith(start):
                return replacement + inside.removeprefix(start)
        return inside


def import_torchvision():
    """The torchvision module; its wheel, a CUDA build, expects two operators of CUDA's torch.

    Raises InputError where PyTorch's libraries are not installed.
    """
    try:
        import torch  # noqa: PLC0415

        try:
            import torchvision  # noqa: PLC0415
        except RuntimeError:  # beside a CPU build of torch
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            for operator in ("nms", "qnms"):
                torch.library.define(f"torchvision::{operator}", signature)
            import torchvision  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"--against torch needs PyTorch's libraries ({error}): pip install 'jaxcrop[torch]'"
        ) from error
    return torchvision


def original(
    grammar: str, wrapper: str, architecture: str, in_channels: int, *, size: int = 224
) -> Original:
    """The original library's model for a layout, with fresh weights.

    `size` is the side in pixels of the images that it will see, which timm's Swin-v2 must know.
    Raises InputError where the library has no such model.
    """
    import_torchvision()
    if wrapper == "smp":
        return _smp(architecture, in_channels)
    if wrapper == "satlas":
        return _satlas(architecture, in_channels)
    library, kind = grammar.split("-")
    return {"timm": _timm, "torchvision": _torchvision}[library](
        architecture, kind, in_channels, size
    )


def _resnet_stages(resnet: "torch.nn.Module", activation: str):
    def stages(image):
        x = getattr(resnet, activation)(resnet.bn1(resnet.conv1(image)))
        maps = [x]
        x = resnet.maxpool(x)
        for layer in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
            x = layer(x)
            maps.append(x)
        return maps

    return stages


def _timm(architecture: str, kind: str, in_channels: int, size: int) -> Original:
    import timm  # noqa: PLC0415

    options = {"in_chans": in_channels, "num_classes": 0}
    if kind == "resnet":
        model = timm.create_model(_TIMM[architecture], **options)
        return Original(model, _resnet_stages(model, "act1"))
    if kind == "vit":
        model = timm.create_model(
            _TIMM[architecture], img_size=224, dynamic_img_size=True, **options
        )
        quarter = len(model.blocks) // 4
        indices = [quarter * k - 1 for k in (1, 2, 3, 4)]

        def vit_stages(image):
            final, maps = model.forward_intermediates(image, indices=indices, norm=False)
            tokens = final[:, model.num_prefix_tokens :]
            last = maps[-1]
            return [*maps[:-1], tokens.transpose(1, 2).reshape(last.shape)]

        return Original(model, vit_stages)
    model = timm.create_model(_TIMM[architecture], img_size=size, **options)

    def swin_stages(image):
        return model.forward_intermediates(image, norm=False, intermediates_only=True)

    return Original(model, swin_stages)


def _torchvision(architecture: str, kind: str, in_channels: int, size: int) -> Original:
    del size
    import torch  # noqa: PLC0415

    models = import_torchvision().models
    if architecture not in _TORCHVISION:
        raise InputError(f"torchvision has no {architecture}")
    model = getattr(models, _TORCHVISION[architecture])()
    if kind == "resnet":
        model.conv1 = torch.nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
        return Original(model, _resnet_stages(model, "relu"))
    if kind == "swin":
        _replace_patch_embedding(model, in_channels)
        return Original(model, _swin_stages(model))
    width = model.hidden_dim
    model.conv_proj = torch.nn.Conv2d(in_channels, width, 16, 16)
    layers = list(model.encoder.layers)

    def vit_stages(image):
        x = model._process_input(image)
        x = torch.cat([model.class_token.expand(len(x), -1, -1), x], dim=1)
        x = x + model.encoder.pos_embedding
        maps = []
        for count, layer in enumerate(layers, start=1):
            x = layer(x)
            if count % (len(layers) // 4) == 0:
                tokens = model.encoder.ln(x) if count == len(layers) else x
                side = image.shape[-1] // 16
                maps.append(tokens[:, 1:].transpose(1, 2).reshape(len(x), width, -1, side))
        return maps

    return Original(model, vit_stages)


def _replace_patch_embedding(swin: "torch.nn.Module", in_channels: int) -> None:
    import torch  # noqa: PLC0415

    width = swin.features[0][0].out_channels
    swin.features[0][0] = torch.nn.Conv2d(in_channels, width, 4, 4)


def _swin_stages(swin: "torch.nn.Module"):
    def stages(image):
        x, maps = image, []
        for number, layer in enumerate(swin.features):
            x = layer(x)
            if number % 2:
                maps.append(x.permute(0, 3, 1, 2))
        return maps

    return stages


def _satlas(architecture: str, in_channels: int) -> Original:
    try:
        from satlaspretrain_models import Model  # noqa: PLC0415
        from satlaspretrain_models.utils import Backbone  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"--against torch needs satlaspretrain_models ({error}): pip install 'jaxcrop[torch]'"
        ) from error
    if architecture not in _SATLAS:
        raise InputError(f"satlaspretrain_models has no {architecture}")
    model = Model(in_channels, backbone=Backbone[_SATLAS[architecture]], fpn=True)

    def stages(image):
        maps = model.backbone(image)
        return [*maps, model.upsample(model.fpn(maps))[0]]

    inner = "resnet" if architecture.startswith("resnet") else "backbone"
    decoder = (("fpn.", "fpn.fpn."), ("upsample.", "upsample.layers."))
    return Original(model, stages, (*decoder, ("", f"backbone.{inner}.")))


def _smp(architecture: str, in_channels: int) -> Original:
    import segmentation_models_pytorch as smp  # noqa: PLC0415

    model = smp.Unet(
        architecture, encoder_weights=None, in_channels=in_channels, classes=NUM_CLASSES
    )

    def stages(image):
        maps = model.encoder(image)
        return [*maps[1:], model.segmentation_head(model.decoder(maps))]

    whole = ("decoder.", "segmentation_head.")
    return Original(model, stages, (*((name, name) for name in whole), ("", "encoder.")))


def fill_original(theirs: Original, inside: Tensors) -> None:
    """Load a file's tensors, under the names of its grammar, into the original model.

    Strictly, but for what no map needs: the published files of one architecture come with and
    without a classifier, and some ViTs without the final norm. Raises InputError naming the rest.
    """
    import torch  # noqa: PLC0415

    state = {
        theirs.name(name): torch.from_numpy(np.array(tensor, np.float32, order="C"))
        for name, tensor in inside.items()
        if tensor.dtype.kind not in "iu"  # counters and constants
    }
    expected = theirs.module.state_dict()
    differing = [
        name for name in state if name in expected and state[name].shape != expected[name].shape
    ]
    kept = {name: tensor for name, tensor in state.items() if name not in differing}
    missing, unexpected = theirs.module.load_state_dict(kept, strict=False)
    wrong = [
        name
        for name in (*missing, *unexpected, *differing)
        if not re.fullmatch(
            r"(.*\.)?(fc|heads?|norm|num_batches_tracked|relative_\w+)(\..+)?", name
        )
    ]
    if wrong:
        raise InputError(f"the original model and the file differ in {shorten(sorted(set(wrong)))}")
