"""The original libraries, as oracles: torchvision beside a CPU build of torch, random weights."""

import math

import pytest


def torchvision():
    """The torchvision module, or a skip; its wheel expects two operators of the CUDA build."""
    torch = pytest.importorskip("torch")
    signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", signature)
    return pytest.importorskip("torchvision")


def timm():
    """The timm module, which imports torchvision, or a skip."""
    torchvision()
    return pytest.importorskip("timm")


def randomise(module, seed: int):
    """Give every weight, bias and running statistic of a torch module a random value, in place.

    Fresh models hide errors behind zeros and ones. Weights keep the scale of their fan-in, so that
    activations stay near 1; running variances are positive. Returns the module in eval mode.
    """
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
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
    return module.eval()
