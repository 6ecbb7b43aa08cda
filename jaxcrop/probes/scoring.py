"""Linear classifiers of hypercolumns, scored on every labelled pixel."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Int64, UInt8

from jaxcrop.compiling import shared
from jaxcrop.features.backbones import AS_THEY_ARE, FrozenBackbone
from jaxcrop.features.maps import ChipSet, Progress, over_chips
from jaxcrop.mesh import data_mesh, put_everywhere
from jaxcrop.models.pyramid import resize
from jaxcrop.probes.classifiers import LinearClassifiers
from jaxcrop.training.metrics import confusion_matrix


def confusions(
    backbone: FrozenBackbone,
    chips: ChipSet,
    classifiers: LinearClassifiers,
    *,
    batch_size: int = 8,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> Int64[np.ndarray, "p chips classes classes"]:
    """A confusion matrix of each classifier for each chip, over all of its labelled pixels.

    The classifiers are of hypercolumns (`jaxcrop.probes.pixels`); each predicts what a segmenter
    with that linear head would. The backbone sees every chip once, for all classifiers.
    """
    mesh = mesh or data_mesh()
    placed = put_everywhere(classifiers, mesh)

    def compute(backbone: FrozenBackbone, ids, image: Array, label: Array) -> dict:
        return {"confusion": shared(_confusions)(backbone, placed, image, label)}

    found = [
        block["confusion"].astype(np.int64)
        for block in over_chips(
            backbone,
            chips,
            AS_THEY_ARE,
            compute,
            batch_size=batch_size,
            mesh=mesh,
            progress=progress,
        )
    ]
    return np.concatenate(found).swapaxes(0, 1)


def _confusions(
    backbone: FrozenBackbone,
    classifiers: LinearClassifiers,
    image: Float[Array, "n h w band"],
    label: UInt8[Array, "n h w"],
) -> Int[Array, "n p classes classes"]:
    height, width = label.shape[1:]
    maps = backbone.maps(image)
    kernel = classifiers.kernel.swapaxes(0, 1)  # every class of every classifier is a score
    parts = jnp.split(kernel, np.cumsum(backbone.channels)[:-1])
    size = maps[0].shape[1:3]
    scores = sum(
        resize(
            jnp.einsum("nhwc,cpk->nhwpk", x.astype(jnp.float32), part).reshape(*x.shape[:3], -1),
            size,
        )
        for x, part in zip(maps, parts, strict=True)
    )
    if size != backbone.padded(height, width):
        scores = resize(scores, backbone.padded(height, width))
    scores = scores[:, :height, :width].reshape(*label.shape, *kernel.shape[1:])
    guess = (scores + classifiers.bias).argmax(-1)
    count = partial(confusion_matrix, label, num_classes=kernel.shape[2])
    return jax.vmap(count, in_axes=-1, out_axes=1)(guess)
