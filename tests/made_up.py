"""Made-up feature maps and weights, and torch modules as our modules see them."""

from collections.abc import Sequence
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx

from jaxcrop.config import LossConfig, TuningConfig
from jaxcrop.training.groups import parameter_groups
from jaxcrop.training.losses import make_loss
from jaxcrop.training.network import values_of
from jaxcrop.training.step import Task, training_network


def pyramid(channels: Sequence[int], size: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    """Random maps (2, height, width, c): the finest of `size`, each half as large as the last."""
    rng = np.random.default_rng(seed)
    height, width = size
    return [
        rng.normal(size=(2, height >> k, width >> k, c)).astype(np.float32)
        for k, c in enumerate(channels)
    ]


def fill(model: nnx.Module, seed: int = 0) -> None:
    """Give every parameter and statistic of an abstract model a random value that keeps its scale.

    It takes no time, where the initialisers of a model must first be compiled.
    """
    rng = np.random.default_rng(seed)
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    for path, variable in nnx.to_flat_state(state):
        noise = rng.normal(size=variable.shape)
        if path[-1] == "var":
            noise = 0.5 + abs(noise)
        elif path[-1] == "scale":
            noise = 1 + 0.2 * noise
        else:
            noise = noise / max(10, np.prod(variable.shape[:-1])) ** 0.5
        variable.set_value(jax.device_put(noise.astype(np.float32)))
    nnx.update(model, state)


def nchw(array: np.ndarray):
    """An array (b, h, w, c) as a torch tensor (b, c, h, w)."""
    torch = pytest.importorskip("torch")
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))


def nhwc(tensor) -> np.ndarray:
    """A torch tensor (b, c, h, w) as an array (b, h, w, c)."""
    return tensor.detach().permute(0, 2, 3, 1).numpy()


def untransposed(module):
    """What has `module`'s state dict with transposed convolutions' weights as (O, I, h, w)."""
    torch = pytest.importorskip("torch")
    state = dict(module.state_dict())
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.ConvTranspose2d):
            state[f"{name}.weight"] = state[f"{name}.weight"].swapaxes(0, 1)
    return SimpleNamespace(state_dict=lambda: state)


def training_task(model: nnx.Module, *, tune: str, dtype: str = "float32"):
    """What trains `model` by the mean cross-entropy: a task, what is trained, and the rest."""
    network = training_network(model, TuningConfig(tune=tune))
    values = values_of(model)
    loss = make_loss(LossConfig(), np.ones(6, int))
    groups = parameter_groups(network.names(nnx.Param), TuningConfig(tune=tune))
    params = {name: values[name] for group in groups if group.rate for name in group.parameters}
    rest = {name: value for name, value in values.items() if name not in params}
    return Task(network, None, dtype, loss, None), params, rest
