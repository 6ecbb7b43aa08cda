"""Features of a frozen backbone at sampled pixels: hypercolumns."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, Int32, UInt8

from jaxcrop.compiling import shared
from jaxcrop.features.backbones import AS_THEY_ARE, FrozenBackbone, View
from jaxcrop.features.maps import IN_MEMORY, ChipSet, Progress, about, over_chips
from jaxcrop.features.store import FeatureStore, Spec
from jaxcrop.models.pyramid import resize
from jaxcrop.probes.sampling import SampledPixels, sample_pixels


class PixelFeatures(NamedTuple):
    """Features of sampled pixels, the same pixels for every backbone (`SampledPixels`)."""

    features: Float[np.ndarray, "chips pixels c"]
    label: UInt8[np.ndarray, "chips pixels"]
    weight: Float32[np.ndarray, "chips pixels"]
    place: Int32[np.ndarray, "chips pixels"]


def pixel_features(
    backbone: FrozenBackbone,
    chips: ChipSet,
    view: View = AS_THEY_ARE,
    *,
    pixels: int = 64,
    store: FeatureStore = IN_MEMORY,
    dtype: str = "float16",
    batch_size: int = 8,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> PixelFeatures:
    """Hypercolumns (Hariharan et al. 2015) of up to `pixels` labelled pixels of each chip.

    The hypercolumn of a pixel is every map at its place, brought there by the resizing that a
    linear head does with its scores (`jaxcrop.models.linear`); so a linear classifier of
    hypercolumns is that head. The other arguments and errors are those of `feature_maps`.
    """
    shape = (len(chips), pixels)
    specs = {"features": Spec((*shape, sum(backbone.channels)), dtype)}
    specs |= {"label": Spec(shape, "uint8"), "weight": Spec(shape, "float32")}
    specs |= {"place": Spec(shape, "int32")}

    def compute(placed: FrozenBackbone, ids: Sequence[str], image: Array, label: Array) -> dict:
        names = [f"{chip_id} {view.about}" for chip_id in ids]
        of_chips = zip(np.asarray(label), names, strict=True)
        sampled = [sample_pixels(label, name, pixels) for label, name in of_chips]
        sampled = SampledPixels(*map(np.stack, zip(*sampled, strict=True)))
        columns = shared(_columns, "dtype")(placed, image, sampled.place, dtype)
        return {"features": columns} | sampled._asdict()

    arrays = store.arrays(
        {"of": f"{pixels} pixels", **about(backbone, chips, view, dtype)},
        specs,
        lambda: over_chips(
            backbone, chips, view, compute, batch_size=batch_size, mesh=mesh, progress=progress
        ),
    )
    return PixelFeatures(**arrays)


def _columns(
    backbone: FrozenBackbone,
    image: Float[Array, "n h w band"],
    place: Int[Array, "n pixels"],
    dtype: str,
) -> Float[Array, "n pixels c"]:
    height, width = image.shape[1:3]
    maps = backbone.maps(image)
    return hypercolumns(maps, place // width, place % width, backbone.padded(height, width)).astype(
        dtype
    )


def hypercolumns(
    maps: Sequence[Float[Array, "n _h _w _c"]],
    row: Int[Array, "n pixels"],
    column: Int[Array, "n pixels"],
    size: tuple[int, int],
) -> Float[Array, "n pixels c"]:
    """All maps at these pixels of an image of `size`, one after the other, in float32.

    Each map is resized to the first, and that to the image, as `jaxcrop.models.linear` and the
    Segmenter resize; but only the pixels asked for are computed.
    """
    first = maps[0].shape[1:3]

    def at_pixels(x: Float[Array, "h w c"], row, column) -> Float[Array, "pixels c"]:
        (rows, down), (columns, across) = (
            (jnp.asarray(at)[pixel], jnp.asarray(weight)[pixel])
            for pixel, (at, weight) in (
                (row, _taps(x.shape[0], first[0], size[0])),
                (column, _taps(x.shape[1], first[1], size[1])),
            )
        )
        around = x[rows[:, :, None], columns[:, None, :]].astype(jnp.float32)
        return jnp.einsum("pi,pj,pijc->pc", down, across, around, precision="highest")

    return jnp.concatenate([jax.vmap(at_pixels)(x, row, column) for x in maps], axis=-1)


@cache
def _taps(
    length: int, first: int, size: int
) -> tuple[Int[np.ndarray, "size taps"], Float32[np.ndarray, "size taps"]]:
    """Which values of an axis of a map, and how much of each, make each pixel of the image.

    Read off what resizing makes of the unit vectors.
    """
    with jax.ensure_compile_time_eval():
        resized = jax.jit(lambda unit: resize(resize(unit, (first, 1)), (size, 1)))
        unit = np.eye(length, dtype=np.float32)[:, :, None, None]
        weight = np.asarray(resized(unit))[:, :, 0, 0].T
    taps = int((weight != 0).sum(axis=1).max())
    at = np.argsort(weight == 0, axis=1, kind="stable")[:, :taps]
    return at, np.take_along_axis(weight, at, axis=1)
