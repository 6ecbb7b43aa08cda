"""The linear head, for asking what a backbone's features hold as they are."""

from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array, Float

from jaxcrop.models.draws import Draws
from jaxcrop.models.layers import Linear
from jaxcrop.models.pyramid import resize


class LinearHead(nnx.Module):
    """One linear classifier per map; their scores are summed at the size of the first map.

    That is a 1x1 convolution of the concatenation of all maps, each resized bilinearly to the
    first: resizing a map and classifying its pixels commute, and scores are cheaper to resize. The
    maps may have any strides. The first classifier holds the bias.
    """

    wants_pyramid = False

    def __init__(self, channels: Sequence[int], num_classes: int, *, rngs: Draws):
        self.classifiers = nnx.List(
            Linear(c, num_classes, use_bias=number == 0, rngs=rngs)
            for number, c in enumerate(channels)
        )

    def __call__(
        self, features: Sequence[Float[Array, "b _h _w _c"]]
    ) -> Float[Array, "b h w classes"]:
        size = features[0].shape[1:3]
        return sum(
            resize(classifier(x), size)
            for classifier, x in zip(self.classifiers, features, strict=True)
        )
