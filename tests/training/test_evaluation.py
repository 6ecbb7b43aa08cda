from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcrop.mesh import data_mesh
from jaxcrop.training.evaluation import evaluate_chips
from jaxcrop.training.feed import in_order
from jaxcrop.training.step import EvalResult


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_predictions_are_those_of_the_first_chips(batch_size):
    """Also where a batch lies whole on each of the devices, and where it is filled up."""
    chips = [
        SimpleNamespace(
            chip_id=str(number),
            image=np.zeros((2, 2, 1), np.uint16),
            label=np.full((2, 2), number, np.uint8),
        )
        for number in range(6)
    ]

    @jax.jit
    def step(values, batch):
        confusion = jnp.zeros((len(batch.label), 6, 6), int).at[:, 1, 1].set(1)
        result = EvalResult(jnp.ones(()), jnp.ones(()), confusion, jnp.zeros((10, 3)))
        return result, batch.label

    batches = in_order(chips, batch_size, data_mesh())
    found = evaluate_chips(step, {}, batches, pictures=4)
    assert [int(prediction[0, 0]) for prediction in found.predictions] == [0, 1, 2, 3]
    assert found.chip_ids == tuple("012345")
    assert found.confusion[1, 1] == 6
