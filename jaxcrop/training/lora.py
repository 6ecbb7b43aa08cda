"""Low-rank updates of attention (LoRA, arXiv 2106.09685), as arrays beside the frozen kernels."""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from jaxcrop.training.network import Values

ADAPTED = re.compile(r"backbone\..*\battn\.(qkv|proj)\.kernel")
"""The kernels that are updated: both products of every attention."""

_DOWN, _UP = ".lora_a", ".lora_b"


def adapters(key: PRNGKeyArray, values: Mapping[str, jax.Array], rank: int) -> Values:
    """New adapters of `rank` for the attention kernels among `values`; their update is zero.

    A kernel (i, o) gets `NAME.lora_a` (i, rank), uniform as a linear layer of PyTorch, and
    `NAME.lora_b` (rank, o), zero. The paper's factor alpha / rank is 1: AdamW's learning rate says
    the same.
    """
    made = {}
    for number, name in enumerate(sorted(name for name in values if ADAPTED.fullmatch(name))):
        inputs, outputs = values[name].shape
        bound = inputs**-0.5
        made[name + _DOWN] = jax.random.uniform(
            jax.random.fold_in(key, number), (inputs, rank), minval=-bound, maxval=bound
        )
        made[name + _UP] = jnp.zeros((rank, outputs))
    return made


def merged(values: Mapping[str, jax.Array]) -> Values:
    """`values` with each adapter added to its kernel, and so of the names that the model has."""
    plain = {name: value for name, value in values.items() if not name.endswith((_DOWN, _UP))}
    for name, value in values.items():
        if name.endswith(_DOWN):
            kernel = name.removesuffix(_DOWN)
            plain[kernel] = plain[kernel] + value @ values[kernel + _UP]
    return plain
