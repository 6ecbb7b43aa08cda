"""Initial parameters beside those of `torch.nn.init`."""

import jax
import numpy as np
import pytest
from flax import nnx

from jaxcrop.models import draws
from jaxcrop.models.draws import Draws
from jaxcrop.models.segmenter import abstract_segmenter, random_segmenter

SHAPE = 3, 3, 64, 96
"""Of a kernel: rows, columns, inputs, outputs."""


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (draws.kaiming_normal_fan_out, "kaiming_normal_", {"mode": "fan_out"}),
        (draws.kaiming_uniform_fan_in, "kaiming_uniform_", {}),
        (draws.uniform_fan_in, "kaiming_uniform_", {"a": 1}),
        (draws.xavier_uniform, "xavier_uniform_", {}),
        (draws.truncated_normal, "trunc_normal_", {"std": 0.02, "a": -0.04, "b": 0.04}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_distributions_are_those_of_pytorch(ours, theirs, settings):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    kernel = torch.empty(*SHAPE[::-1])
    want = getattr(torch.nn.init, theirs)(kernel, **settings).numpy().ravel()
    found = ours(Draws(0).params(), SHAPE)
    assert found.shape == SHAPE
    assert found.dtype == np.float32
    shares = np.linspace(0, 1, 21)
    deviation = want.std()
    near = np.quantile(found, shares)[1:-1], np.quantile(want, shares)[1:-1]
    np.testing.assert_allclose(*near, atol=0.03 * deviation)
    np.testing.assert_allclose(found.std(), deviation, rtol=0.01)
    if theirs != "kaiming_normal_":
        np.testing.assert_allclose(abs(found).max(), abs(want).max(), rtol=1e-2)


def test_every_parameter_has_a_stream_of_its_own_that_the_seed_decides():
    def drawn(seed):
        stream = Draws(seed)
        return np.stack([draws.xavier_uniform(stream.params(), (2, 3)) for _ in range(3)])

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert np.unique([drawn(1), drawn(2)]).size == 36


def test_a_model_of_no_seed_has_the_shapes_of_one_with_values():
    arguments = "resnet18", "fpn", 4, 6
    model, abstract = random_segmenter(*arguments, seed=0), abstract_segmenter(*arguments)
    assert all(isinstance(value, jax.Array) for value in jax.tree.leaves(nnx.state(model)))
    shapes = jax.tree.map(lambda value: (value.shape, value.dtype), nnx.state(model))
    assert shapes == jax.tree.map(lambda value: (value.shape, value.dtype), nnx.state(abstract))
