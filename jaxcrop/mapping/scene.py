"""A scene in, a crop map out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxcrop.crops import CROPS, NUM_CLASSES
from jaxcrop.data.bands import BandInput
from jaxcrop.errors import InputError
from jaxcrop.mapping.area import row_hectares
from jaxcrop.mapping.blend import blend, most_probable
from jaxcrop.mapping.planes import LogitsFn, Window, mirrored, planes
from jaxcrop.mapping.raster import Layer, Scene, open_scene, write_cogs
from jaxcrop.mapping.windows import Windows


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
        of_windows = planes(
            logits_fn,
            _windows(source, windows),
            len(windows),
            batch_size=batch_size,
            progress=progress,
        )
        for top, strip in blend(windows, of_windows, NUM_CLASSES - 1):
            crop, best = most_probable(strip)
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


def _windows(scene: Scene, windows: Windows) -> Iterator[Window]:
    for row, column in windows:
        height = min(windows.size, windows.height - row)
        width = min(windows.size, windows.width - column)
        where = f"at row {row}, column {column} of {scene.path}"
        yield mirrored(*scene.read(row, column, height, width), windows.size, where)
