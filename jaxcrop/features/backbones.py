"""A frozen backbone apart from its head, and what it sees of a chip."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, UInt8, UInt32

from jaxcrop.data.augment import KEYED, augment, normalise, view_keys
from jaxcrop.data.bands import SENTINEL2_BANDS, BandInput
from jaxcrop.data.reading import Batch
from jaxcrop.models.segmenter import Segmenter
from jaxcrop.models.sizes import padded, padded_size


class RawBands(nnx.Module):
    """The backbone that is none: its one map is the image."""

    strides = (1,)

    def __init__(self, bands: int):
        self.channels = (bands,)

    def __call__(self, image: Float[Array, "b h w band"]) -> tuple[Float[Array, "b h w band"]]:
        return (image,)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone whose weights and BatchNorm statistics stay as they are; a tree of arrays to JAX.

    `architecture` names it. It sees the bands of `band_input`, padded to whole multiples of
    `multiple` pixels, and computes in `dtype`.
    """

    state: nnx.State
    definition: nnx.GraphDef = field(metadata={"static": True})
    architecture: str = field(metadata={"static": True})
    band_input: BandInput = field(metadata={"static": True})
    channels: tuple[int, ...] = field(metadata={"static": True})
    multiple: int = field(metadata={"static": True})
    dtype: str = field(default="float32", metadata={"static": True})

    @classmethod
    def of(
        cls, model: Segmenter, architecture: str, band_input: BandInput, dtype: str = "float32"
    ) -> "FrozenBackbone":
        """The backbone of a model whose other parts may be abstract.

        Images are padded as the model pads them.
        """
        multiple = (model.neck or model.backbone).strides[-1]
        return cls._of(model.backbone, architecture, band_input, int(multiple), dtype)

    @classmethod
    def raw(cls, bands: Sequence[str] = SENTINEL2_BANDS) -> "FrozenBackbone":
        """No backbone at all: the features of a pixel are its bands, as reflectances."""
        reflectances = BandInput.scaled(bands)
        return cls._of(RawBands(len(bands)), "raw bands", reflectances, 1, "float32")

    @classmethod
    def _of(cls, module: nnx.Module, architecture, band_input, multiple, dtype) -> "FrozenBackbone":
        definition, state = nnx.split(module)
        channels = tuple(module.channels)
        return cls(state, definition, architecture, band_input, channels, multiple, dtype)

    @cached_property
    def digest(self) -> str:
        """A hash of all that decides the features of a chip."""
        rest = (self.architecture, self.band_input, self.multiple, self.dtype)
        hashed = sha256(repr(rest).encode())
        for path, variable in sorted(nnx.to_flat_state(self.state), key=lambda item: str(item[0])):
            array = np.ascontiguousarray(variable[...])
            hashed.update(f"{path} {array.dtype} {array.shape}".encode())
            hashed.update(array.reshape(-1).view(np.uint8).data)
        return hashed.hexdigest()

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The size of an image after padding."""
        return padded_size(height, width, self.multiple)

    def maps(self, image: Float[Array, "n h w band"]) -> tuple[Float[Array, "n _h _w _c"], ...]:
        """The feature maps of normalised images, finest first; traceable by jit.

        Images are padded as by a Segmenter.
        """
        module = nnx.merge(self.definition, self.state)
        module.eval()
        return tuple(module(padded(image, self.multiple).astype(self.dtype)))


@dataclass(frozen=True)
class View:
    """How chips are looked at: as they are (number 0), or each under one fixed augmentation.

    View k > 0 changes a chip, image and labels, by a key of the seed, k and the chip's id: alike
    for every backbone, and beside whichever other chips.
    """

    number: int = 0
    seed: int = 0

    @property
    def augmented(self) -> bool:
        """Whether chips are changed at all."""
        return self.number > 0

    @property
    def about(self) -> tuple[int, ...]:
        """What decides how chips are changed."""
        return (self.number, self.seed, KEYED) if self.augmented else ()

    def keys(self, number: UInt32[Array, " n"]) -> PRNGKeyArray | None:
        """The key by which each chip, called by its number, is augmented; None for none."""
        return _view_keys(number, self.number, self.seed) if self.augmented else None


AS_THEY_ARE = View()
"""Chips without augmentation."""


_view_keys = jax.jit(view_keys)


def seen(
    batch: Batch, keys: PRNGKeyArray | None, band_input: BandInput
) -> tuple[Float[Array, "n h w band"], UInt8[Array, "n h w"]]:
    """Chips as training sees them: normalised and, where there are keys, augmented by them."""
    image = normalise(batch.image, band_input)
    return (image, batch.label) if keys is None else augment(keys, image, batch.label)
