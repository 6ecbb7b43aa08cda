"""Initial parameters of a model, drawn on the host: no program has to be compiled for them."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Draws:
    """A stream of generators, asked for as `nnx.Rngs` is: `params()` gives the next parameter's.

    The same seed draws the same parameters on every machine. Without one there are no generators,
    and what they would draw is zeros: for models of which names, shapes and types are wanted.
    """

    def __init__(self, seed: int | None):
        self._seed = seed
        self._count = 0

    def params(self) -> np.random.Generator | None:
        """The next generator."""
        self._count += 1
        return None if self._seed is None else np.random.default_rng((self._seed, self._count))


Drawn = Float[np.ndarray, "*shape"] | Float[Array, "*shape"]
Initializer = Callable[[np.random.Generator | None, tuple[int, ...]], Drawn]
"""Draws an array of a shape."""


def kaiming_normal_fan_out(generator: np.random.Generator | None, shape: tuple[int, ...]) -> Drawn:
    """Normal with variance 2 / fan-out (He et al. 2015, arXiv 1502.01852)."""
    return _normal(generator, shape, math.sqrt(2 / _fans(shape)[1]))


def kaiming_uniform_fan_in(generator: np.random.Generator | None, shape: tuple[int, ...]) -> Drawn:
    """Uniform with variance 2 / fan-in, of the same source."""
    return _uniform(generator, shape, math.sqrt(6 / _fans(shape)[0]))


def uniform_fan_in(generator: np.random.Generator | None, shape: tuple[int, ...]) -> Drawn:
    """Uniform with variance 1 / fan-in: the same for what no ReLU follows."""
    return _uniform(generator, shape, math.sqrt(3 / _fans(shape)[0]))


def xavier_uniform(generator: np.random.Generator | None, shape: tuple[int, ...]) -> Drawn:
    """Uniform with variance 2 / (fan-in + fan-out) (Glorot and Bengio 2010)."""
    return _uniform(generator, shape, math.sqrt(6 / sum(_fans(shape))))


def truncated_normal(generator: np.random.Generator | None, shape: tuple[int, ...]) -> Drawn:
    """Normal with deviation 0.02, none beyond two deviations: timm's for ViTs."""
    drawn = _normal(generator, shape, 1.0)
    if generator is not None:
        beyond = np.flatnonzero(np.abs(drawn) > 2)
        while beyond.size:
            again = generator.standard_normal(beyond.size, np.float32)
            drawn.flat[beyond] = again
            beyond = beyond[np.abs(again) > 2]
    return np.float32(0.02) * drawn


def zeros(*shape: int) -> Float[np.ndarray, "*shape"]:
    """A parameter that begins as zeros."""
    return np.zeros(shape, np.float32)


def ones(*shape: int) -> Float[np.ndarray, "*shape"]:
    """A parameter that begins as ones."""
    return np.ones(shape, np.float32)


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many inputs an output has, and how many outputs an input: of a kernel (..., i, o)."""
    *window, i, o = shape
    return math.prod(window) * i, math.prod(window) * o


def _normal(generator: np.random.Generator | None, shape: tuple[int, ...], deviation: float):
    if generator is None:
        return jnp.zeros(shape)
    return np.float32(deviation) * generator.standard_normal(shape, np.float32)


def _uniform(generator: np.random.Generator | None, shape: tuple[int, ...], bound: float):
    if generator is None:
        return jnp.zeros(shape)
    return np.float32(bound) * (2 * generator.random(shape, np.float32) - 1)
