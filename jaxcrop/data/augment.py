"""Normalisation and augmentation on the device, inside the compiled step."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8, UInt16, UInt32

from jaxcrop.data.bands import BandInput
from jaxcrop.data.sampling import Sampling


def normalise(image: UInt16[Array, "n h w b"], band_input: BandInput) -> Float[Array, "n h w b"]:
    """Digital numbers as the backbone was trained to see them (`BandInput` says how)."""
    shifted = image.astype(jnp.float32) - jnp.asarray(band_input.offset, jnp.float32)
    scaled = shifted / jnp.asarray(band_input.divisor, jnp.float32)
    return jnp.clip(scaled, 0.0, 1.0) if band_input.clip else scaled


KEYED = 2
"""Rises whenever a key comes to stand for another augmentation than before.

What is kept of augmented chips is kept under it, since their labels are augmented anew.
"""


class Box(NamedTuple):
    """A crop in pixels: first row, first column, rows, columns."""

    top: Int[Array, ""]
    left: Int[Array, ""]
    height: Int[Array, ""]
    width: Int[Array, ""]


def random_box(
    drawn: Float[Array, "22"],
    height: int,
    width: int,
    scale: tuple[float, float] = (0.6, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A crop of random area and aspect, as torchvision's RandomResizedCrop draws it.

    `drawn` are numbers from [0, 1), `scale` bounds the crop's share of the area, `ratio` its width
    over height. Ten tries; the whole image where none fits.
    """
    area = height * width * (scale[0] + (scale[1] - scale[0]) * drawn[:10])
    low, high = map(math.log, ratio)
    aspect = jnp.exp(low + (high - low) * drawn[10:20])
    widths = jnp.round(jnp.sqrt(area * aspect)).astype(int)
    heights = jnp.round(jnp.sqrt(area / aspect)).astype(int)
    fits = (widths <= width) & (heights <= height)
    first = jnp.argmax(fits)
    box_height = jnp.where(fits.any(), heights[first], height)
    box_width = jnp.where(fits.any(), widths[first], width)
    room = jnp.stack((height - box_height, width - box_width))
    start = (drawn[20:] * (room + 1)).astype(int)
    return Box(*jnp.minimum(start, room), box_height, box_width)  # a product may be rounded up


class Flips(NamedTuple):
    """Whether rows are taken from the last to the first, and columns."""

    vertical: Bool[Array, ""]
    horizontal: Bool[Array, ""]


def crop_resize_flip(
    image: Float[Array, "h w b"], label: UInt8[Array, "h w"], box: Box, flips: Flips
) -> tuple[Float[Array, "h w b"], UInt8[Array, "h w"]]:
    """Stretch `box` to the full size: the image bilinearly with aligned corners, the label nearest.

    Both sample the same positions, in the order that `flips` says, so that label and image stay on
    each other (datasets_spec 8.5).
    """
    height, width, _ = image.shape

    def positions(start, length, size, flip):
        order = jnp.arange(size)
        order = jnp.where(flip, order[::-1], order)
        position = start + order * (length - 1) / max(size - 1, 1)
        low = jnp.floor(position).astype(int)
        high = jnp.minimum(low + 1, start + length - 1)
        return low, high, position - low, jnp.round(position).astype(int)

    low, high, weight, nearest_row = positions(box.top, box.height, height, flips.vertical)
    image = image[low] * (1 - weight)[:, None, None] + image[high] * weight[:, None, None]
    low, high, weight, nearest_column = positions(box.left, box.width, width, flips.horizontal)
    image = image[:, low] * (1 - weight)[:, None] + image[:, high] * weight[:, None]
    return image, label[nearest_row][:, nearest_column]


def augment(
    keys: PRNGKeyArray, image: Float[Array, "n h w b"], label: UInt8[Array, "n h w"]
) -> tuple[Float[Array, "n h w b"], UInt8[Array, "n h w"]]:
    """The paper's augmentation: random-resized-crop (0.6-1), then each flip at probability 1/2.

    Chip i is changed as `keys[i]` says.
    """

    def one(key, image, label):
        drawn = jax.random.uniform(key, (24,))  # one draw: to compile another is a quarter second
        box, flips = random_box(drawn[:22], *label.shape), Flips(*(drawn[22:] < 0.5))
        return crop_resize_flip(image, label, box, flips)

    return jax.vmap(one)(keys, image, label)


def view_keys(
    number: UInt32[Array, " n"], view: Int[Array, " n"] | int, seed: int = 0
) -> PRNGKeyArray:
    """The keys of views 1, 2, ... of chips, each a fixed augmentation.

    Chip i, called by its `number` (`jaxcrop.data.reading.Batch`), is changed in its view alike for
    every backbone, seed of a run, and beside whichever other chips.
    """
    views = jnp.broadcast_to(jnp.asarray(view), number.shape)
    key = jax.random.key(seed)
    return jax.vmap(lambda v, n: jax.random.fold_in(jax.random.fold_in(key, v), n))(views, number)


@dataclass(frozen=True)
class Augmentation:
    """How training sees chips: changed anew in every step, in one of some fixed views, or not."""

    how: Literal["fresh", "views", "none"] = "fresh"
    views: int = 1

    def keys(
        self, key: PRNGKeyArray, step: Int[Array, ""], number: UInt32[Array, " n"]
    ) -> PRNGKeyArray | None:
        """The keys that `augment` takes in a step, drawn by `key` and the step; None for none."""
        if self.how == "none":
            return None
        drawn = jax.random.fold_in(key, step)
        if self.how == "fresh":
            return jax.random.split(drawn, len(number))
        return view_keys(number, self.drawn_views(key, step, len(number)))

    def drawn_views(
        self, key: PRNGKeyArray, step: Int[Array, ""], chips: int
    ) -> Int[Array, " {chips}"]:
        """The view, 1 to `views`, in which each chip of a step's batch is seen."""
        return jax.random.randint(jax.random.fold_in(key, step), (chips,), 1, self.views + 1)

    def views_by_step(
        self, key: PRNGKeyArray, sampling: Sampling, steps: range
    ) -> dict[int, Int[np.ndarray, " n"]]:
        """`drawn_views` of the batches of these steps on the host, by step; none without views.

        Drawn all at once, before any step runs: between two, the draw would wait for the first.
        """
        if self.how != "views":
            return {}
        by_size: dict[int, list[int]] = {}
        for step in steps:
            by_size.setdefault(sampling.size(step), []).append(step)
        views = {}
        for size, alike in by_size.items():
            drawn = jax.vmap(lambda step: self.drawn_views(key, step, size))  # noqa: B023 -- called at once
            views |= zip(alike, np.asarray(drawn(np.array(alike))), strict=True)
        return views


FRESH = Augmentation()
"""That of the paper."""
