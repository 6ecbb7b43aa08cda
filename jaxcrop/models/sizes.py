"""The sizes of image that a model takes."""

from jaxtyping import Array, Float


def check_size(image: Float[Array, "b h w band"], multiple: int) -> None:
    """Raise ValueError unless both sides of the image are multiples of `multiple` pixels."""
    _, h, w, _ = image.shape
    if h % multiple or w % multiple:
        raise ValueError(
            f"an image of {h} x {w} pixels must be padded to multiples of {multiple} first"
        )
