"""What the vision transformers share."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from jaxcrop.models.layers import Linear


class Mlp(nnx.Module):
    """Two linear layers, four times as wide between them, with the exact (erf) GELU.

    JAX's default is the tanh approximation, which is 4.7e-4 off (weights_spec 5.2).
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.fc1 = Linear(channels, 4 * channels, rngs=rngs)
        self.fc2 = Linear(4 * channels, channels, rngs=rngs)

    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))
