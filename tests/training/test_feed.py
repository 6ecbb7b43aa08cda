"""How the steps are run: which batches together, and what is told of them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcrop.data.sampling import Sampling
from jaxcrop.training.feed import streamed_together
from jaxcrop.training.step import AT_ONCE


def test_a_program_takes_the_next_batches_of_one_size():
    """Every third batch holds what is left of a pass, and the last program what is left of all."""
    sampling = Sampling(chips=10, batch_size=4, seed=0, how="replacement")
    many = Sampling(chips=40, batch_size=4, seed=0, how="replacement")
    assert AT_ONCE == 4
    assert _programs(sampling, range(1, 7)) == [(1,), (2,), (3, 4), (5,), (6,)]
    assert _programs(many, range(2, 13)) == [(2, 3, 4, 5), (6, 7, 8, 9), (10, 11, 12)]


def _programs(sampling, steps):
    """The batches of each program, numbered by their steps."""
    ran = []

    def few_steps(state, batches, count, key):
        assert len(batches) == AT_ONCE
        assert all(batch is batches[count - 1] for batch in batches[count:])
        ran.append(tuple(batches[:count]))
        return state + count, jnp.asarray(batches, np.float32)

    advance = streamed_together(few_steps, iter(steps), sampling, jax.random.key(0))
    told = []
    for done, losses in advance(0, steps):
        told.extend(np.asarray(losses).astype(int).tolist())
        assert done == len(told)
    assert told == list(steps)
    return ran
