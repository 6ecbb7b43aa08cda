import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcrop.training.optimizer import adamw, reduce_on_plateau


def test_adamw_equals_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start = rng.normal(size=100).astype(np.float32)
    gradients = rng.normal(size=(20, 100)).astype(np.float32)
    leaf = torch.nn.Parameter(torch.from_numpy(start.copy()))
    reference = torch.optim.AdamW([leaf], lr=1e-3)  # whose default decay, 0.01, the paper used
    optimizer = adamw(1e-3, 0.01)
    params = jnp.asarray(start)
    state = optimizer.init(params)
    for gradient in gradients:
        leaf.grad = torch.from_numpy(gradient)
        reference.step()
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, leaf.detach(), rtol=1e-5, atol=1e-7)


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
