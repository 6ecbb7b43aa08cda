"""A backbone joined to a decoder: image in, logits out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxcrop.errors import InputError
from jaxcrop.models.backbones import create_backbone
from jaxcrop.models.decoders import DECODERS
from jaxcrop.models.draws import Draws
from jaxcrop.models.primitives import widened
from jaxcrop.models.pyramid import PlainPyramid, resize
from jaxcrop.models.sizes import padded, padded_size

if TYPE_CHECKING:
    from jaxcrop.data.bands import BandInput


class Segmenter(nnx.Module):
    """Semantic segmentation of one image, or of several of the same place.

    An image is padded at its bottom and right, with the values of its edge, to whole pixels of the
    coarsest map, and the logits are cropped; so every size is taken. Logits at another resolution
    than the image's are resized bilinearly to it. They are in float32 at least, whatever the image.

    Images with a time axis are seen by the backbone one by one, and each map is the element-wise
    maximum over time, as in SatlasPretrain's multi-image models (weights_spec 5.4). It is taken for
    every backbone; satlaspretrain_models, other than the code that trained its weights, silently
    leaves it out for ResNets. `present` marks the images that exist, at least one of each place;
    the others are skipped, but should be finite, and count where batch statistics are taken.
    """

    band_input: "BandInput | None" = None
    """What it is fed: bands and their scale, as `jaxcrop.models.create` found them."""

    def __init__(self, backbone: nnx.Module, neck: PlainPyramid | None, decoder: nnx.Module):
        self.backbone = backbone
        self.neck = neck
        self.decoder = decoder

    def __call__(
        self,
        image: Float[Array, "b *t h w band"],
        present: Bool[Array, "b t"] | None = None,
    ) -> Float[Array, "b h w classes"]:
        *leading, height, width, bands = image.shape
        multiple = (self.neck or self.backbone).strides[-1]
        image = padded(image.reshape(-1, height, width, bands), multiple)
        features = self.backbone(image)
        if len(leading) > 1:
            features = tuple(
                temporal_maximum(x.reshape(*leading, *x.shape[1:]), present) for x in features
            )
        logits = decoded(self.neck, self.decoder, features, image.shape[1:3])
        return logits[:, :height, :width]


class Head(nnx.Module):
    """A segmenter without its backbone: feature maps of images in, logits of those images out.

    `size` is the height and width of the images, as they were before they were padded.
    """

    def __init__(self, model: Segmenter, size: tuple[int, int]):
        self.neck = model.neck
        self.decoder = model.decoder
        self.size = tuple(size)
        multiple = int((model.neck or model.backbone).strides[-1])
        self.padded = padded_size(*size, multiple)

    def __call__(
        self, features: Sequence[Float[Array, "b _h _w _c"]]
    ) -> Float[Array, "b h w classes"]:
        height, width = self.size
        return decoded(self.neck, self.decoder, features, self.padded)[:, :height, :width]


def decoded(
    neck: PlainPyramid | None,
    decoder: nnx.Module,
    features: Sequence[Float[Array, "b _h _w _c"]],
    size: tuple[int, int],
) -> Float[Array, "b h w classes"]:
    """Logits at `size`, in float32 at least, of the maps of a backbone."""
    logits = widened(decoder(features if neck is None else neck(features)))
    return logits if logits.shape[1:3] == size else resize(logits, size)


def temporal_maximum(
    x: Float[Array, "b t h w c"], present: Bool[Array, "b t"] | None = None
) -> Float[Array, "b h w c"]:
    """Element-wise maximum over the images in time, of those that are `present`."""
    where = None if present is None else present[:, :, None, None, None]
    return x.max(axis=1, where=where, initial=None if present is None else -jnp.inf)


def create_segmenter(
    architecture: str, decoder: str, in_channels: int, num_classes: int, *, rngs: Draws
) -> Segmenter:
    """A segmenter with random weights; the paper's are "resnet50" with "unet" or "fpn".

    A backbone whose maps share one stride gets a PlainPyramid before a decoder that wants a
    pyramid. Raises InputError for an unknown `architecture` or `decoder`, listing the names.
    """
    if decoder not in DECODERS:
        raise InputError(f"unknown decoder {decoder!r}: choose one of {', '.join(DECODERS)}")
    kind = DECODERS[decoder]
    backbone = create_backbone(architecture, in_channels, rngs=rngs)
    plain = len(set(backbone.strides)) == 1
    neck = None
    if plain and kind.wants_pyramid:
        neck = PlainPyramid(backbone.channels, backbone.strides, rngs=rngs)
    maps = neck or backbone
    return Segmenter(backbone, neck, kind(maps.channels, num_classes, rngs=rngs))


def random_segmenter(
    architecture: str, decoder: str, in_channels: int, num_classes: int, *, seed: int
) -> Segmenter:
    """The same model with the weights that `seed` draws, on JAX's first device."""
    model = create_segmenter(architecture, decoder, in_channels, num_classes, rngs=Draws(seed))
    nnx.update(model, jax.device_put(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    return model


def abstract_segmenter(
    architecture: str, decoder: str, in_channels: int, num_classes: int
) -> Segmenter:
    """The same model without values: names, shapes and types."""
    arguments = architecture, decoder, in_channels, num_classes
    return nnx.eval_shape(lambda: create_segmenter(*arguments, rngs=Draws(None)))
