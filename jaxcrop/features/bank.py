"""The feature maps of every chip that some heads train, validate or test on."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxcrop.features.backbones import AS_THEY_ARE, FrozenBackbone, View
from jaxcrop.features.maps import ChipSet, FeatureMaps, feature_maps
from jaxcrop.features.store import FeatureStore

Place = tuple[str, str]
"""Region and id of a chip."""

MapsAndLabels = tuple[tuple[Float[np.ndarray, "*n _h _w _c"], ...], UInt8[np.ndarray, "*n h w"]]


class FeatureBank:
    """Feature maps by chip and view, computed when they are first asked for, once for all.

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

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image as the backbone sees it, padded."""
        region = next(iter(self._chips))
        height, width = self._of(region, 0).label.shape[1:]
        return self._backbone.padded(height, width)

    def arrays(self, *leading: int) -> MapsAndLabels:
        """Arrays of zeros for the maps and labels of as many chips as `leading` multiplies to.

        A CPU computes on them as they are: what is put there afterwards changes what it sees.
        """
        region = next(iter(self._chips))
        maps, label = self._of(region, 0)
        shaped = [_aligned((*leading, *array.shape[1:]), array.dtype) for array in (*maps, label)]
        return tuple(shaped[:-1]), shaped[-1]

    def fill(
        self,
        arrays: MapsAndLabels,
        places: Sequence[Place],
        views: Int[np.ndarray, " n"] | None = None,
    ) -> None:
        """Put the maps and labels of chips, each in its view (none: as they are), into `arrays`.

        Rows beyond the chips are left without labels.
        """
        views = np.zeros(len(places), int) if views is None else views
        maps, label = arrays
        for row, (place, view) in enumerate(zip(places, views.tolist(), strict=True)):
            found, at = self._of(place[0], view), self._rows[place]
            for whole, of_view in zip(maps, found.maps, strict=True):
                whole[row] = of_view[at]
            label[row] = found.label[at]
        label[len(places) :] = 0

    def _of(self, region: str, view: int) -> FeatureMaps:
        if (region, view) not in self._maps:
            chips = self._chips[region]

            def progress(done: int, total: int) -> None:
                self._say(f"features of {region}, view {view}: {done}/{total} chips")

            self._maps[region, view] = feature_maps(
                self._backbone,
                chips,
                View(view) if view else AS_THEY_ARE,
                store=self._store,
                dtype=self._dtype,
                progress=progress,
            )
        return self._maps[region, view]


_ALIGNMENT = 64
"""JAX copies an array to a CPU's device unless it begins at a multiple of so many bytes."""


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    room = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)
