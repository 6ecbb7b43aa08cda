import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcrop.config import OptimizerConfig
from jaxcrop.training.optimizer import adamw, reduce_on_plateau

_SHAPES = {"a": (50,), "b": (5, 7), "c": (128, 128), "d": (3, 2**13), "e": ()}
"""Small parameters, which are updated as one, among large ones, of 2**14 elements and more."""


@pytest.mark.parametrize("names", ["abcde", "abe", "cd"])
@pytest.mark.parametrize("rate", [1.0, 0.1])
@pytest.mark.parametrize("clip", [None, 5.0])
def test_adamw_equals_torch(names, rate, clip):
    """Two parameter groups, one at `rate` times the learning rate, and a clipped gradient."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)

    def draw():
        return {name: rng.normal(size=_SHAPES[name]).astype(np.float32) for name in names}

    start, gradients = draw(), [draw() for _ in range(20)]
    leaves = {n: torch.nn.Parameter(torch.from_numpy(np.copy(v))) for n, v in start.items()}
    faster, slower = names[::2], names[1::2]
    groups = [
        {"params": [leaves[name] for name in faster]},
        {"params": [leaves[name] for name in slower], "lr": rate * 1e-3},
    ]
    reference = torch.optim.AdamW(groups, lr=1e-3)  # whose default decay, 0.01, the paper used
    rates = dict.fromkeys(faster, 1.0) | dict.fromkeys(slower, rate)
    optimizer = adamw(OptimizerConfig(clip_norm=clip), rates)
    params = {name: jnp.asarray(value) for name, value in start.items()}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for gradient in gradients:
        for name, leaf in leaves.items():
            leaf.grad = torch.from_numpy(np.copy(gradient[name]))
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(leaves.values(), clip)
        reference.step()
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    for name, leaf in leaves.items():
        # optax's bias correction has 32 bits, which of many values some near zero show.
        atol = 1e-7 if leaf.numel() < 2**14 else 2e-7
        np.testing.assert_allclose(params[name], leaf.detach(), rtol=1e-5, atol=atol)


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_reduce_on_plateau_equals_torch(patience, seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    losses = 1 + rng.random(40).cumsum() * rng.choice([-0.01, 0.001], 40) + rng.random(40) * 0.05
    reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        reference, factor=0.1, patience=patience, eps=0.0
    )
    plateau = reduce_on_plateau(patience)
    state = plateau.init(jnp.zeros(()))
    update = jax.jit(plateau.update)
    for loss in losses.astype(np.float32):
        scheduler.step(float(loss))
        _, state = update(jnp.zeros(()), state, value=loss)
        np.testing.assert_allclose(state.scale, reference.param_groups[0]["lr"], rtol=1e-5)
    assert state.scale < 1
