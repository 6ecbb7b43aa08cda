"""How long cells should take: by their arithmetic, and by what cells took that are done."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxcrop.config import TrainConfig
from jaxcrop.sweeps.cells import Cell, CellResult

# Billions of multiplications for an image of 256 x 256 pixels, counted from the layers' shapes.
_BACKBONES = {
    "resnet18": 2.6, "resnet50": 5.7, "resnet152": 15.5, "vit-s16": 6.3, "vit-b16": 23.6,
    "vit-l16": 82.0, "vit-h14": 218.0, "vit-s14": 8.2, "vit-b14": 30.8, "swin-v2-t": 6.0,
    "swin-v2-b": 20.5,
}  # fmt: skip
_DECODERS = {"unet": 4.0, "fpn": 14.0, "upernet": 45.0, "linear": 0.1}

_FIXED_SECONDS = 15.0
"""What a training run takes besides its steps: programs are made or read, results written."""

_SHARE = 0.5
"""How much of the speed of one large matrix product a step comes to."""


def expected_seconds(
    cells: Sequence[Cell],
    configs: Mapping[str, TrainConfig],
    chips: Callable[[TrainConfig], int],
    finished: Sequence[CellResult],
) -> dict[str, float]:
    """Seconds of each cell by its key; `chips` says how many a run trains on.

    By the speed of a matrix product on this machine; where some cells are done, by what the median
    of these took.
    """
    work = {cell.key: _giga(cell, configs[cell.key], chips) for cell in cells}
    ratios = [
        max(result.seconds - _FIXED_SECONDS, 0.1) / work[result.cell.key]
        for result in finished
        if result.cell.key in work
    ]
    per_giga = float(np.median(ratios)) if ratios else 2 / (_SHARE * _giga_flops())
    return {key: _FIXED_SECONDS + giga * per_giga for key, giga in work.items()}


def _giga(cell: Cell, config: TrainConfig, chips: Callable[[TrainConfig], int]) -> float:
    """Billions of multiplications of a training run."""
    from jaxcrop.training.kept_maps import keeps_maps  # noqa: PLC0415 -- imports JAX

    optimizer, count = config.optimizer, chips(config)
    seen = optimizer.steps * min(optimizer.batch_size, count)
    if optimizer.epochs is not None:
        seen = optimizer.epochs * count
    by_backbone = seen
    if cell.method == "heads" or keeps_maps(config):  # once for each chip and view
        by_backbone = count * (optimizer.views if optimizer.augmentation == "views" else 1)
    backbone = _BACKBONES[config.model.architecture]
    decoder = _DECODERS[config.model.decoder]
    backward = 0 if config.tuning.tune == "frozen" else 2 * backbone
    return by_backbone * (backbone + backward) + seen * 3 * decoder


def _giga_flops() -> float:
    import jax  # noqa: PLC0415 -- only a dry run without results asks

    x = jax.numpy.ones((2048, 2048))
    multiply = jax.jit(lambda a: a @ a)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        multiply(x).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * 2048**3 / min(seconds) / 1e9
