"""Activations that are computed again in the backward pass in place of being kept for it."""

from flax import nnx
from jaxtyping import Array


class Blockwise(nnx.Module):
    """What runs blocks one after the other, and may keep no more than what enters each of them.

    With `remat`, which `set_attributes` sets in a whole model, the gradient computes what lies
    within a block again (Chen et al. 2016, arXiv 1604.06174): the same values in less memory, for
    another forward pass.
    """

    remat: bool = False

    def through(self, block: nnx.Module, *inputs: Array | None) -> Array:
        """What the block makes of its inputs; its batch statistics move as they would without."""
        return nnx.remat(_call)(block, *inputs) if self.remat else block(*inputs)


def _call(block: nnx.Module, *inputs: Array | None) -> Array:
    return block(*inputs)
