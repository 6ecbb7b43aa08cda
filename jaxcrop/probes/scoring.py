"""Linear classifiers of hypercolumns, scored on every labelled pixel."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, Int64

from jaxcrop.compiling import shared
from jaxcrop.data.reading import Batch
from jaxcrop.features.backbones import FrozenBackbone, seen
from jaxcrop.features.maps import ChipSet, Progress, over_chips
from jaxcrop.mesh import data_mesh, put_batch, put_everywhere
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

    def compute(backbone: FrozenBackbone, ids, batch: Batch, mesh: Mesh) -> dict:
        on_devices = put_batch(batch, mesh, len(ids))
        return {"confusion": shared(_confusions)(backbone, placed, on_devices)}

    found = [
        block["confusion"].astype(np.int64)
        for block in over_chips(
            backbone, chips, compute, batch_size=batch_size, mesh=mesh, progress=progress
        )
    ]
    return np.concatenate(found).swapaxes(0, 1)


def _confusions(
    backbone: FrozenBackbone, classifiers: LinearClassifiers, batch: Batch
) -> Int[Array, "n p classes classes"]:
    image, label = seen(batch, None, backbone.band_input)
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
