"""Maps of a frozen backbone, whole, chip by chip."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from jaxcrop.compiling import shared
from jaxcrop.data.bands import BandInput
from jaxcrop.data.experiment import ChipRef, Experiment
from jaxcrop.data.index import ChipIndex
from jaxcrop.data.reading import Batch, Chip, Records, evaluation_batches
from jaxcrop.errors import InputError
from jaxcrop.features.backbones import AS_THEY_ARE, FrozenBackbone, View, seen
from jaxcrop.features.store import FeatureStore, Spec
from jaxcrop.mesh import data_mesh, one_behind, put_batch, put_everywhere

_LAYOUT = 1
"""Counts up when features are computed otherwise, so that older entries are left alone."""

IN_MEMORY = FeatureStore(None)
"""Keeps nothing."""


class TooLargeError(InputError):
    """Features that the type which is to hold them cannot hold."""


Progress = Callable[[int, int], None]
"""Told how many chips of how many are done."""

Compute = Callable[
    [FrozenBackbone, Sequence[str], Float[Array, "n h w band"], UInt8[Array, "n h w"]], dict
]
"""Makes arrays by name, a row for each chip, of the images and labels of the chips of these ids."""


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
        return self.records.chips_at(self.index.positions(self.ids), band_input)

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


def chip_sets(experiment: Experiment, refs: Iterable[ChipRef]) -> dict[str, ChipSet]:
    """These chips, each once, by region."""
    ids: dict[str, set[str]] = {}
    for region, chip_id in refs:
        ids.setdefault(region, set()).add(chip_id)
    return {
        region: ChipSet(
            experiment.records[region], experiment.indices[region], tuple(sorted(of_region))
        )
        for region, of_region in ids.items()
    }


class FeatureMaps(NamedTuple):
    """The maps of a backbone, finest first, and the labels that lie under them.

    The maps are of images padded as the backbone wants them; the labels are not padded.
    """

    maps: tuple[Float[np.ndarray, "chips _h _w _c"], ...]
    label: UInt8[np.ndarray, "chips h w"]


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

    def compute(placed: FrozenBackbone, ids: Sequence[str], image: Array, label: Array) -> dict:
        maps = shared(_maps, "dtype")(placed, image, dtype)
        return {"label": label} | {f"map{k}": x for k, x in enumerate(maps)}

    arrays = store.arrays(
        {"of": "maps", **about(backbone, chips, view, dtype)},
        specs,
        lambda: over_chips(
            backbone, chips, view, compute, batch_size=batch_size, mesh=mesh, progress=progress
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


def about(backbone: FrozenBackbone, chips: ChipSet, view: View, dtype: str) -> dict[str, Any]:
    """All that decides the values of features, of whichever kind, for a store to know them by."""
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
    view: View,
    compute: Compute,
    *,
    batch_size: int,
    mesh: Mesh | None,
    progress: Progress | None,
) -> Iterator[dict[str, np.ndarray]]:
    """What `compute` makes of each batch in this view; the next is read while the devices work."""
    mesh = mesh or data_mesh()
    placed = put_everywhere(backbone, mesh)
    size = mesh.size * min(batch_size, -(-len(chips) // mesh.size))

    def begun_with(ids: Sequence[str], batch: Batch) -> dict:
        # A program of its own: what the backbone makes of images is compiled for all views.
        on_devices, keys = put_batch(batch, mesh, size), view.keys(batch.number)
        image, label = shared(seen, "band_input")(on_devices, keys, backbone.band_input)
        return compute(placed, [*ids, *[""] * (size - len(ids))], image, label)

    begun = (
        (len(ids), begun_with(ids, batch))
        for ids, batch in evaluation_batches(chips.chips(backbone.band_input), size)
    )
    done = 0
    for count, arrays in one_behind(begun):
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


def _maps(
    backbone: FrozenBackbone, image: Float[Array, "n h w band"], dtype: str
) -> tuple[Float[Array, "n _h _w _c"], ...]:
    return tuple(x.astype(dtype) for x in backbone.maps(image))
