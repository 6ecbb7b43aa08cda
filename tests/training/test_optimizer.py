import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcrop.config import OptimizerConfig
from jaxcrop.training.optimizer import adamw, reduce_on_plateau


@pytest.mark.parametrize("rate", [1.0, 0.1])
@pytest.mark.parametrize("clip", [None, 5.0])
def test_adamw_equals_torch(rate, clip):
    """Two parameter groups, one at `rate` times the learning rate, and a clipped gradient."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start = {name: rng.normal(size=50).astype(np.float32) for name in "ab"}
    gradients = rng.normal(size=(20, 2, 50)).astype(np.float32)
    leaves = {n: torch.nn.Parameter(torch.from_numpy(v.copy())) for n, v in start.items()}
    groups = [{"params": [leaves["a"]]}, {"params": [leaves["b"]], "lr": rate * 1e-3}]
    reference = torch.optim.AdamW(groups, lr=1e-3)  # whose default decay, 0.01, the paper used
    optimizer = adamw(OptimizerConfig(clip_norm=clip), {"a": 1.0, "b": rate})
    params = {name: jnp.asarray(value) for name, value in start.items()}
    state = optimizer.init(params)
    for pair in gradients:
        for leaf, gradient in zip(leaves.values(), pair, strict=True):
            leaf.grad = torch.from_numpy(gradient.copy())
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(leaves.values(), clip)
        reference.step()
        updates, state = optimizer.update(
            dict(zip("ab", map(jnp.asarray, pair), strict=True)), state, params
        )
        params = optax.apply_updates(params, updates)
    for name, leaf in leaves.items():
        np.testing.assert_allclose(params[name], leaf.detach(), rtol=1e-5, atol=1e-7)


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
