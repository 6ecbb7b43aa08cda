"""k-nearest-neighbour classification of features by their cosine."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jaxcrop.crops import NUM_CLASSES

_BLOCK = 512
"""Queries that are compared with all rows at a time."""


def nearest_neighbours(
    x: Float[Array, "n d"],
    label: Int[Array, " n"],
    weight: Float[Array, "p n"],
    queries: Float[Array, "q d"],
    neighbours: Sequence[int],
    *,
    temperature: float | None = 0.07,
    num_classes: int = NUM_CLASSES,
) -> UInt8[np.ndarray, "p k q"]:
    """The class of each query by its k nearest rows, for each k of `neighbours`: exact.

    A row votes with its weight, times exp(cosine / temperature) as by Wu et al. (2018) unless
    `temperature` is None. Rows of weight 0 are no neighbours, so problem p, with `weight[p]`, may
    know any part of the rows; all problems share the products. The first class wins a tie.
    """
    rows, label = _unit(jnp.asarray(x, jnp.float32)), jnp.asarray(label)
    weight = jnp.asarray(weight, jnp.float32)
    ranks = tuple(min(k, len(x)) for k in neighbours)
    found = []
    for start in range(0, len(queries), _BLOCK):
        part = np.asarray(queries[start : start + _BLOCK], np.float32)
        block = np.pad(part, ((0, _BLOCK - len(part)), (0, 0)))
        cosine = _cosine(block, rows)
        # A program for each problem: inside a loop of XLA's, its top_k sorts all rows on a CPU.
        voted = [
            _vote(cosine, label, of_problem, temperature, ranks=ranks, num_classes=num_classes)
            for of_problem in weight
        ]
        found.append(np.stack(voted)[:, :, : len(part)])
    return np.concatenate(found, axis=2)


@jax.jit
def _unit(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)


@jax.jit
def _cosine(queries: Float[Array, "q d"], rows: Float[Array, "n d"]) -> Float[Array, "q n"]:
    return jnp.matmul(_unit(queries), rows.T, precision=jax.lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames=("ranks", "num_classes"))
def _vote(cosine, label, weight, temperature, *, ranks, num_classes) -> UInt8[Array, "k q"]:
    best = jax.lax.top_k(jnp.where(weight > 0, cosine, -jnp.inf), max(ranks))
    # Without a barrier, XLA on a CPU sorts all rows instead: 60 times as long.
    near, at = jax.lax.optimization_barrier(best)
    factor = 1.0 if temperature is None else jnp.exp((near - near[:, :1]) / temperature)
    vote = jnp.where(jnp.isfinite(near), weight[at] * factor, 0)
    votes = jnp.cumsum(jax.nn.one_hot(label[at], num_classes) * vote[..., None], axis=1)
    return votes[:, jnp.array(ranks) - 1].argmax(-1).astype(jnp.uint8).T
