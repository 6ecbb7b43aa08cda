"""The feature maps of every chip that some heads train, validate or test on."""

import math
import mmap
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import product
from threading import Lock

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxcrop.data.experiment import ChipRef
from jaxcrop.features.backbones import AS_THEY_ARE, FrozenBackbone, View
from jaxcrop.features.maps import ChipSet, FeatureMaps, feature_maps, map_specs
from jaxcrop.features.store import FeatureStore, Spec

MapsAndLabels = tuple[tuple[Float[np.ndarray, "*n _h _w _c"], ...], UInt8[np.ndarray, "*n h w"]]


class FeatureBank:
    """Feature maps by chip and view, computed when they are first asked for, once for all threads.

    `chips` are those of each region that any heads on the backbone ask for: the same whichever
    heads these are, so that all find the features that the first have put into the `store`. `say`
    is told of progress.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        chips: Mapping[str, ChipSet],
        store: FeatureStore,
        *,
        dtype: str = "float32",
        say: Callable[[str], None] = lambda text: None,
    ):
        self._backbone, self._store, self._dtype, self._say = backbone, store, dtype, say
        self._chips = chips
        self._rows = {
            (region, chip_id): row
            for region, of_region in chips.items()
            for row, chip_id in enumerate(of_region.ids)
        }
        self._maps: dict[tuple[str, int], FeatureMaps] = {}
        self._computing = Lock()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a chip."""
        return self._specs["label"].shape[1:]

    def compute(self, views: Iterable[int]) -> None:
        """Compute now what is not kept yet of all chips in these views."""
        for region, view in product(self._chips, views):
            self._of(region, view)

    def arrays(self, *leading: int) -> MapsAndLabels:
        """Arrays of zeros for the maps and labels of as many chips as `leading` multiplies to.

        A CPU computes on them as they are: what is put there afterwards changes what it sees.
        """
        arrays = {
            name: _aligned((*leading, *spec.shape[1:]), np.dtype(spec.dtype))
            for name, spec in self._specs.items()
        }
        label = arrays.pop("label")
        return tuple(arrays.values()), label

    def fill(
        self,
        arrays: MapsAndLabels,
        refs: Sequence[ChipRef],
        views: Int[np.ndarray, " n"] | None = None,
    ) -> None:
        """Put the maps and labels of chips, each in its view (none: as they are), into `arrays`.

        Rows beyond the chips are left without labels.
        """
        views = np.zeros(len(refs), int) if views is None else views
        maps, label = arrays
        for row, (ref, view) in enumerate(zip(refs, views.tolist(), strict=True)):
            found, at = self._of(ref[0], view), self._rows[ref]
            for whole, of_view in zip(maps, found.maps, strict=True):
                whole[row] = of_view[at]
            label[row] = found.label[at]
        label[len(refs) :] = 0
        for found in list(self._maps.values()):  # another thread may add one
            for array in (*found.maps, found.label):
                _return_pages(array)

    @cached_property
    def _specs(self) -> dict[str, Spec]:
        """Those of any region's: chips are of one size."""
        return map_specs(self._backbone, next(iter(self._chips.values())), self._dtype)

    def _of(self, region: str, view: int) -> FeatureMaps:
        with self._computing:
            if (region, view) not in self._maps:
                self._maps[region, view] = self._computed(region, view)
            return self._maps[region, view]

    def _computed(self, region: str, view: int) -> FeatureMaps:
        chips = self._chips[region]
        return feature_maps(
            self._backbone,
            chips,
            View(view) if view else AS_THEY_ARE,
            store=self._store,
            dtype=self._dtype,
            progress=lambda done, total: self._say(
                f"features of {region}, view {view}: {done}/{total} chips"
            ),
        )


class ArraysInTurn:
    """Sets of a bank's arrays, one after the other, for batches that are read into them.

    The kernel takes longer to give the pages of new arrays than the maps take to be copied.
    """

    def __init__(self, sets: int = 2):
        self._sets: deque[MapsAndLabels | None] = deque([None] * sets)

    def of(self, bank: FeatureBank, *leading: int) -> MapsAndLabels:
        """The set given longest ago, made anew where it is of other `leading` axes."""
        found = self._sets.popleft()
        if found is None or found[1].shape[: len(leading)] != leading:
            found = bank.arrays(*leading)
        self._sets.append(found)
        return found


_ALIGNMENT = 64
"""JAX copies an array to a CPU's device unless it begins at a multiple of so many bytes."""


def _return_pages(array: np.ndarray) -> None:
    """Let go of the memory that reading a mapped array took; the file stays in the system's cache.

    All features of a run would count as its memory otherwise.
    """
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    room = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)
