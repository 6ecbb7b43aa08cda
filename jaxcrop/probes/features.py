"""Features of a frozen backbone: whole maps of chips, or hypercolumns at sampled pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from itertools import chain, pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, Int32, PRNGKeyArray, UInt8

from jaxcrop.data.augment import augment
from jaxcrop.data.bands import BandInput
from jaxcrop.data.index import ChipIndex
from jaxcrop.data.reading import Batch, Chip, Records, evaluation_batches
from jaxcrop.errors import InputError
from jaxcrop.models.pyramid import resize
from jaxcrop.probes.backbones import AS_THEY_ARE, FrozenBackbone, View, seen
from jaxcrop.probes.sampling import SampledPixels, sample_pixels
from jaxcrop.probes.store import FeatureStore, Spec
from jaxcrop.training.mesh import data_mesh, put_batch, put_everywhere

_LAYOUT = 1
"""Counts up when features are computed otherwise, so that older entries are left alone."""

IN_MEMORY = FeatureStore(None)
"""Keeps nothing."""


class TooLargeError(InputError):
    """Features that the type which is to hold them cannot hold."""


Progress = Callable[[int, int], None]
"""Told how many chips of how many are done."""


@dataclass(frozen=True)
class ChipSet:
    """Chips of one region's records, in the order of `ids`."""

    records: Records
    index: ChipIndex
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def chips(self, band_input: BandInput) -> Sequence[Chip]:
        """The chips with the wanted bands. Raises InputError where the records lack one."""
        return self.records.chips_at(self.index.places(self.ids), band_input)

    @property
    def digest(self) -> str:
        """A hash of the chips: their ids, and of the pixels what the index says."""
        rows = self.index.rows(self.ids)
        records = self.records
        lines = [f"{records.name} {records.variant} {records.version} {self.index.bands}"]
        lines += self.ids
        hashed = sha256("\n".join(lines).encode())
        for column in ("box", "counts", "valid", "minimum", "total", "squares"):
            hashed.update(np.ascontiguousarray(getattr(self.index, column)[rows]).tobytes())
        return hashed.hexdigest()


class FeatureMaps(NamedTuple):
    """The maps of a backbone, finest first, and the labels that lie under them.

    The maps are of images padded as the backbone wants them; the labels are not padded.
    """

    maps: tuple[Float[np.ndarray, "chips _h _w _c"], ...]
    label: UInt8[np.ndarray, "chips h w"]


class PixelFeatures(NamedTuple):
    """Features of sampled pixels, the same pixels for every backbone (`SampledPixels`)."""

    features: Float[np.ndarray, "chips pixels c"]
    label: UInt8[np.ndarray, "chips pixels"]
    weight: Float32[np.ndarray, "chips pixels"]
    place: Int32[np.ndarray, "chips pixels"]


def feature_maps(
    backbone: FrozenBackbone,
    chips: ChipSet,
    view: View = AS_THEY_ARE,
    *,
    store: FeatureStore = IN_MEMORY,
    dtype: str = "float16",
    batch_size: int = 8,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> FeatureMaps:
    """Every map of the backbone for every chip, kept by the store as `dtype`.

    Chips are computed `batch_size` at a time on each device of `mesh` (default: all). Raises
    InputError where the records lack a band, and TooLargeError for features that `dtype` cannot
    hold.
    """
    specs = map_specs(backbone, chips, dtype)

    def compute(placed: FrozenBackbone, ids: Sequence[str], batch: Batch, mesh: Mesh) -> dict:
        keys = view.keys(batch.number)
        maps, label = _maps(placed, put_batch(batch, mesh, len(ids)), keys, dtype)
        return {"label": label} | {f"map{k}": x for k, x in enumerate(maps)}

    arrays = store.arrays(
        {"of": "maps", **_about(backbone, chips, view, dtype)},
        specs,
        lambda: over_chips(
            backbone, chips, compute, batch_size=batch_size, mesh=mesh, progress=progress
        ),
    )
    label = arrays.pop("label")
    return FeatureMaps(tuple(arrays.values()), label)


def map_specs(backbone: FrozenBackbone, chips: ChipSet, dtype: str) -> dict[str, Spec]:
    """Shapes and types of the chips' `map0`, `map1`, ... and `label`, one view of them.

    The backbone may be abstract. Raises InputError where the records lack a band.
    """
    height, width = chips.chips(backbone.band_input)[0].label.shape
    image = jax.ShapeDtypeStruct((1, height, width, len(backbone.band_input.bands)), jnp.float32)
    shapes = jax.eval_shape(FrozenBackbone.maps, backbone, image)
    specs = {f"map{k}": Spec((len(chips), *x.shape[1:]), dtype) for k, x in enumerate(shapes)}
    return specs | {"label": Spec((len(chips), height, width), "uint8")}


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

    def compute(placed: FrozenBackbone, ids: Sequence[str], batch: Batch, mesh: Mesh) -> dict:
        keys = view.keys(batch.number)
        label = batch.label if keys is None else np.asarray(_augmented_labels(keys, batch.label))
        names = [f"{chip_id} {view.about}" for chip_id in ids]
        sampled = [sample_pixels(*of_chip, pixels) for of_chip in zip(label, names, strict=True)]
        sampled = SampledPixels(*map(np.stack, zip(*sampled, strict=True)))
        placed_batch = put_batch(batch, mesh, len(ids))
        return {"features": _columns(placed, placed_batch, keys, sampled.place, dtype)} | (
            sampled._asdict()
        )

    arrays = store.arrays(
        {"of": f"{pixels} pixels", **_about(backbone, chips, view, dtype)},
        specs,
        lambda: over_chips(
            backbone, chips, compute, batch_size=batch_size, mesh=mesh, progress=progress
        ),
    )
    return PixelFeatures(**arrays)


def _about(backbone: FrozenBackbone, chips: ChipSet, view: View, dtype: str) -> dict:
    return {
        "layout": _LAYOUT,
        "backbone": backbone.digest,
        "chips": chips.digest,
        "view": view.about,
        "dtype": dtype,
    }


def over_chips(
    backbone: FrozenBackbone,
    chips: ChipSet,
    compute: Callable[[FrozenBackbone, Sequence[str], Batch, Mesh], dict],
    *,
    batch_size: int,
    mesh: Mesh | None,
    progress: Progress | None,
) -> Iterator[dict[str, np.ndarray]]:
    """What `compute` makes of each batch; the next is read while the devices work."""
    mesh = mesh or data_mesh()
    placed = put_everywhere(backbone, mesh)
    size = mesh.size * min(batch_size, -(-len(chips) // mesh.size))
    begun = (
        (len(ids), compute(placed, [*ids, *[""] * (size - len(ids))], batch, mesh))
        for ids, batch in evaluation_batches(chips.chips(backbone.band_input), size)
    )
    done = 0
    for (count, arrays), _ in pairwise(chain(begun, [None])):
        yield _finished(backbone, count, arrays)
        done += count
        if progress:
            progress(done, len(chips))


def _finished(backbone: FrozenBackbone, count: int, arrays: dict) -> dict[str, np.ndarray]:
    """The rows of the chips that are no filling. Raises TooLargeError where one is not finite."""
    arrays = {name: np.asarray(array)[:count] for name, array in arrays.items()}
    for array in arrays.values():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise TooLargeError(
                f"features of {backbone.architecture} are too large for {array.dtype}, or not "
                "numbers: keep them as float32, or check the weights"
            )
    return arrays


@jax.jit
def _augmented_labels(keys: PRNGKeyArray, label: UInt8[Array, "n h w"]) -> UInt8[Array, "n h w"]:
    return augment(keys, jnp.zeros((*label.shape, 1)), label)[1]


@partial(jax.jit, static_argnames="dtype")
def _maps(
    backbone: FrozenBackbone, batch: Batch, keys: PRNGKeyArray | None, dtype: str
) -> tuple[tuple[Float[Array, "n _h _w _c"], ...], UInt8[Array, "n h w"]]:
    image, label = seen(batch, keys, backbone.band_input)
    return tuple(x.astype(dtype) for x in backbone.maps(image)), label


@partial(jax.jit, static_argnames="dtype")
def _columns(
    backbone: FrozenBackbone,
    batch: Batch,
    keys: PRNGKeyArray | None,
    place: Int[Array, "n pixels"],
    dtype: str,
) -> Float[Array, "n pixels c"]:
    image, _ = seen(batch, keys, backbone.band_input)
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
        unit = jnp.eye(length)[:, :, None, None]
        weight = np.asarray(resize(resize(unit, (first, 1)), (size, 1)))[:, :, 0, 0].T
    taps = int((weight != 0).sum(axis=1).max())
    at = np.argsort(weight == 0, axis=1, kind="stable")[:, :taps]
    return at, np.take_along_axis(weight, at, axis=1)
