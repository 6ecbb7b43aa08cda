"""The sizes of image that a model takes, and how others are padded to them."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def padded_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    """The smallest size of whole multiples that holds an image."""
    return height + -height % multiple, width + -width % multiple


def padded(image: Float[Array, "b h w band"], multiple: int) -> Float[Array, "b _h _w band"]:
    """An image padded to whole multiples, at its bottom and right, with the values of its edge."""
    _, height, width, _ = image.shape
    rows, columns = padded_size(height, width, multiple)
    beyond = ((0, 0), (0, rows - height), (0, columns - width), (0, 0))
    return jnp.pad(image, beyond, mode="edge")


def check_size(image: Float[Array, "b h w band"], multiple: int) -> None:
    """Raise ValueError unless both sides of the image are multiples of `multiple` pixels."""
    _, h, w, _ = image.shape
    if h % multiple or w % multiple:
        raise ValueError(
            f"an image of {h} x {w} pixels must be padded to multiples of {multiple} first"
        )
