"""A scene in, a crop map out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt16

from jaxcrop.crops import CROPS, NUM_CLASSES
from jaxcrop.data.bands import BandInput
from jaxcrop.errors import InputError
from jaxcrop.mapping.area import row_hectares
from jaxcrop.mapping.blend import blend, probabilities
from jaxcrop.mapping.raster import Layer, Scene, open_scene, write_cogs
from jaxcrop.mapping.windows import Windows

LogitsFn = Callable[[UInt16[np.ndarray, "b size size band"]], Float[np.ndarray, "b size size k"]]
"""The network as the mapper sees it; a JAX array is as good a result as a NumPy one."""


@dataclass(frozen=True)
class Summary:
    """What a map holds: pixels and hectares of each class of `jaxcrop.crops`; class 0 is nodata."""

    pixels: tuple[int, ...]
    hectares: tuple[float, ...]

    def __str__(self) -> str:
        valid = max(sum(self.pixels[1:]), 1)
        lines = [f"{'class':<10}{'pixels':>14}{'hectares':>16}{'share':>9}"]
        for crop, pixels, hectares in list(zip(CROPS, self.pixels, self.hectares, strict=True))[1:]:
            lines.append(f"{crop.name:<10}{pixels:>14,}{hectares:>16,.1f}{pixels / valid:>9.1%}")
        return "\n".join([*lines, f"{'no data':<10}{self.pixels[0]:>14,}"])


def map_scene(
    logits_fn: LogitsFn,
    band_input: BandInput,
    scene: Path,
    out: Path,
    *,
    confidence: Path | None = None,
    bands: Sequence[str] | None = None,
    offset: int = 0,
    window: int = 256,
    overlap: int = 64,
    batch_size: int = 4,
    note: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write the crop map of `scene` to `out`: a cloud-optimised GeoTIFF on the scene's grid.

    Windows of `window` pixels that share `overlap` pixels go through `logits_fn` in batches that
    all have `batch_size` windows (so it compiles once); their probabilities are blended and the
    most probable of the classes 1 and up is written, 0 where the scene has no data. `confidence`
    names a second file for its probability in percent. `bands` and `offset` are `open_scene`'s.
    `note` becomes the image description of the files. `progress` is called with the windows done
    and their total. Memory grows with the scene's width but not its height. Raises InputError for
    a bad scene, path or setting.
    """
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} is not a number of windows: give 1 or more")
    paths = [path for path in (scene, out, confidence) if path is not None]
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError(
            f"{', '.join(map(str, paths))}: scene, map and confidence need a file each, "
            "give different names"
        )
    described = {"TIFFTAG_IMAGEDESCRIPTION": note} if note else {}
    layers = [
        Layer(
            out,
            "crop type",
            "mode",
            described | {f"class_{number}": crop.name for number, crop in enumerate(CROPS)},
            {number: crop.rgb for number, crop in enumerate(CROPS)},
        )
    ]
    if confidence is not None:
        name = "probability of the crop type in percent"
        layers.append(Layer(confidence, name, "average", described))

    with (
        open_scene(scene, band_input, bands, offset) as source,
        write_cogs(layers, source.source) as (crop_sink, *confidence_sink),
    ):
        raster = source.source
        windows = Windows(raster.height, raster.width, window, overlap)
        hectares = row_hectares(raster.crs, raster.transform, raster.height, raster.width)
        pixels, area = np.zeros(NUM_CLASSES, np.int64), np.zeros(NUM_CLASSES)
        planes = _planes(logits_fn, source, windows, batch_size, progress or (lambda *_: None))
        for top, strip in blend(windows, planes, NUM_CLASSES - 1):
            best = strip.max(axis=0)
            # Probabilities of a valid pixel add up to 1; those of a pixel without data are all 0.
            crop = np.where(best > 0, strip.argmax(axis=0) + 1, 0).astype(np.uint8)
            rows = (top, top + len(crop))
            place = (rows, (0, raster.width))
            crop_sink.write(crop, 1, window=place)
            for sink in confidence_sink:
                percent = np.rint(100 * best).clip(0, 100).astype(np.uint8)
                sink.write(percent, 1, window=place)
            counts = np.stack([(crop == k).sum(axis=1) for k in range(NUM_CLASSES)])
            pixels += counts.sum(axis=1)
            area += counts @ hectares[slice(*rows)]
    return Summary(tuple(pixels.tolist()), tuple(area.tolist()))


def _planes(
    logits_fn: LogitsFn,
    scene: Scene,
    windows: Windows,
    batch_size: int,
    progress: Callable[[int, int], None],
) -> Iterator[Float32[np.ndarray, "classes size size"] | None]:
    """Probabilities of each window in turn, 0 where there is no data, None if there is none at all.

    The next batch is read and dispatched before the last one's logits are waited for.
    """
    corners = list(windows)
    waiting = None
    for first in range(0, len(corners), batch_size):
        batch = corners[first : first + batch_size]
        dn = np.zeros((batch_size, windows.size, windows.size, len(scene.indices)), np.uint16)
        valid = np.zeros((batch_size, windows.size, windows.size), bool)
        for slot, corner in enumerate(batch):
            dn[slot], valid[slot] = _read_window(scene, windows, *corner)
        logits = logits_fn(dn) if valid.any() else None
        if waiting is not None:
            yield from _finish(scene, *waiting)
            progress(first, len(corners))
        waiting = batch, logits, valid
    yield from _finish(scene, *waiting)
    progress(len(corners), len(corners))


def _read_window(scene: Scene, windows: Windows, row: int, column: int):
    """The window's DN and validity, mirrored beyond the scene's edge."""
    height = min(windows.size, windows.height - row)
    width = min(windows.size, windows.width - column)
    dn, valid = scene.read(row, column, height, width)
    if height == width == windows.size:
        return dn, valid
    beyond = ((0, windows.size - height), (0, windows.size - width))
    return np.pad(dn, (*beyond, (0, 0)), mode="reflect"), np.pad(valid, beyond)


def _finish(scene: Scene, batch, logits, valid):
    if logits is None:
        yield from [None] * len(batch)
        return
    for (row, column), window_logits, mask in zip(batch, np.asarray(logits), valid, strict=False):
        if window_logits.shape != (*mask.shape, NUM_CLASSES):
            raise ValueError(
                f"logits_fn gave {window_logits.shape} for one window, "
                f"not {(*mask.shape, NUM_CLASSES)}"
            )
        plane = probabilities(window_logits)
        if not np.isfinite(plane).all():
            raise InputError(
                f"the network's output for the window at row {row}, column {column} of "
                f"{scene.path} is not finite: its weights are damaged, give others"
            )
        yield plane * mask
