"""Images in memory through the network, as scenes go through it."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32, Integer

from jaxcrop.crops import NUM_CLASSES
from jaxcrop.data.bands import BandInput
from jaxcrop.errors import InputError
from jaxcrop.mapping.blend import blend
from jaxcrop.mapping.planes import (
    LogitsFn,
    Window,
    check_offset,
    digital_numbers,
    mirrored,
    planes,
)
from jaxcrop.mapping.raster import band_names
from jaxcrop.mapping.windows import Windows


def as_images(image: Integer[np.ndarray, "*n h w band"]) -> Integer[np.ndarray, "n h w band"]:
    """One image, or several of one size, as an array of several.

    Raises InputError where it has another number of axes, or holds no digital numbers.
    """
    image = np.asarray(image)
    if image.ndim not in (3, 4) or not all(image.shape[-3:]):
        raise InputError(
            f"an image of shape {image.shape} is not (height, width, band) or (n, height, width, "
            "band): move its axes, for example with np.moveaxis(image, 0, -1)"
        )
    if not np.issubdtype(image.dtype, np.integer):
        raise InputError(
            f"the image holds {image.dtype} but digital numbers are expected (whole numbers, "
            "reflectance x 10,000): scale and round it, as (10_000 * image).astype(np.uint16)"
        )
    if image.size and image.max() > np.iinfo(np.uint16).max:
        raise InputError(
            f"the image holds {image.max()} but digital numbers end at 65,535: give reflectance x "
            "10,000"
        )
    return image if image.ndim == 4 else image[None]


def image_strips(
    logits_fn: LogitsFn,
    band_input: BandInput,
    images: Integer[np.ndarray, "n h w band"],
    *,
    bands: Sequence[str] | None = None,
    offset: int = 0,
    window: int = 256,
    overlap: int = 64,
    batch_size: int = 4,
) -> Iterator[tuple[int, int, Float32[np.ndarray, "classes rows w"]]]:
    """Probabilities of the classes 1 and up as strips `(image, first row, values)`.

    Windows, batches and blending are those of `map_scene`, but that a batch takes windows of
    several images. `bands` names the images' bands; without, they are those of `band_input`. A
    strip is overwritten after the next one is asked for. Raises InputError for bands or settings
    that do not suit.
    """
    check_offset(offset)
    count, height, width, channels = images.shape
    indices = _indices(band_input, bands, channels)
    windows = Windows(height, width, window, overlap)
    of_windows = planes(
        logits_fn,
        (part for image in images for part in _windows(image, indices, offset, windows)),
        count * len(windows),
        batch_size=batch_size,
    )
    for number in range(count):
        of_image = (next(of_windows) for _ in range(len(windows)))
        for top, strip in blend(windows, of_image, NUM_CLASSES - 1):
            yield number, top, strip


def _indices(band_input: BandInput, bands: Sequence[str] | None, channels: int) -> tuple[int, ...]:
    """Where the wanted bands lie in an image."""
    if bands is not None:
        return band_input.indices(band_names(bands, channels, "the image"), "the image")
    if channels != len(band_input.bands):
        raise InputError(
            f"the image has {channels} bands but the model sees {len(band_input.bands)} "
            f"({', '.join(band_input.bands)}): give these in this order, or name the image's bands"
        )
    return tuple(range(channels))


def _windows(
    image: Integer[np.ndarray, "h w band"],
    indices: tuple[int, ...],
    offset: int,
    windows: Windows,
) -> Iterator[Window]:
    for row, column in windows:
        place = image[row : row + windows.size, column : column + windows.size]
        seen = digital_numbers(place[..., indices], offset)
        yield mirrored(*seen, windows.size, f"at row {row}, column {column}")
