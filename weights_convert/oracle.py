"""The original PyTorch models and ours on the same image (needs the `torch` extra)."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxcrop.crops import NUM_CLASSES
from jaxcrop.weights.converted import load_weights
from weights_convert.convert import convert
from weights_convert.layouts import parse_layout, tensors_by_name, unwrap
from weights_convert.originals import Original, fill_original, original
from weights_convert.reader import read_checkpoint

if TYPE_CHECKING:
    from flax import nnx

    from jaxcrop.models.segmenter import Segmenter

FEATURE_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
"""The relative differences that verification lets pass."""


class Difference(NamedTuple):
    """How far ours is from the original's, in largest absolute values, where theirs is `size`."""

    what: str
    shape: tuple[int, ...]
    size: float
    difference: float
    tolerance: float

    @property
    def relative(self) -> float:
        """The difference in units of the original's size."""
        return self.difference / self.size

    @property
    def passes(self) -> bool:
        """Whether the difference is within the tolerance; one that is no number is not."""
        return self.relative <= self.tolerance


def torch_maps(theirs: Original, image: np.ndarray) -> list[np.ndarray]:
    """The original's maps in evaluation mode, in NHWC."""
    import torch  # noqa: PLC0415

    theirs.module.eval()
    with torch.no_grad():
        stages = theirs.stages(torch.from_numpy(_nchw(image)))
        return [stage.permute(0, 2, 3, 1).numpy() for stage in stages]


def torch_gradient(theirs: Original, image: np.ndarray) -> np.ndarray:
    """The gradient of the image of a weighted sum of all maps, in float64."""
    import torch  # noqa: PLC0415

    theirs.module.eval().double()
    x = torch.from_numpy(_nchw(image)).double().requires_grad_()
    maps = [stage.permute(0, 2, 3, 1) for stage in theirs.stages(x)]
    total = sum((stage * torch.from_numpy(_weights(stage.shape))).mean() for stage in maps)
    (gradient,) = torch.autograd.grad(total, x)
    theirs.module.float()
    return gradient.permute(0, 2, 3, 1).numpy()


def _nchw(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2))


# The same program in half the time: a large model is compiled for longer than it runs here.
_COMPILER_OPTIONS = {"xla_backend_optimization_level": 0}


def our_maps(model: "Segmenter", image: np.ndarray) -> list[np.ndarray]:
    """Our maps, with those of the decoder it has; the model computes in the type of the image."""
    import jax  # noqa: PLC0415
    from flax import nnx  # noqa: PLC0415

    model.eval()
    definition, state = nnx.split(model)

    def maps(image, state):
        return _our_stages(nnx.merge(definition, state), image)

    state = _filled(state, np.float32)
    found = jax.jit(maps, compiler_options=_COMPILER_OPTIONS)(image, state)
    return [np.asarray(stage, np.float32) for stage in found]


def our_gradient(model: "Segmenter", image: np.ndarray) -> np.ndarray:
    """Our gradient as `torch_gradient` gives the original's.

    In float64, since in float32 rounding puts a few activations on the other side of a ReLU's zero,
    in PyTorch as here, and each changes the gradient around it by more than rounding.
    """
    import jax  # noqa: PLC0415
    from flax import nnx  # noqa: PLC0415

    model.eval()
    definition, state = nnx.split(model)

    def total(image, state):
        maps = _our_stages(nnx.merge(definition, state), image)
        return sum((stage * _weights(stage.shape)).mean() for stage in maps)

    with jax.enable_x64(True):
        state = _filled(state, np.float64)
        # Compiled as usual: convolutions of float64 are slow without optimisation.
        return np.asarray(jax.jit(jax.grad(total))(image.astype(np.float64), state))


def _filled(state: "nnx.State", dtype: type[np.floating]) -> "nnx.State":
    """The values of a model of which the file filled a part; the rest, zeros, enters no map."""
    import jax  # noqa: PLC0415

    def value(leaf):
        abstract = isinstance(leaf, jax.ShapeDtypeStruct)
        return np.zeros(leaf.shape, dtype) if abstract else np.asarray(leaf, dtype)

    return jax.tree.map(value, state)


def _our_stages(model: "Segmenter", image):
    from jaxcrop.models.fpn import FPN  # noqa: PLC0415
    from jaxcrop.models.unet import UNet  # noqa: PLC0415

    maps = model.backbone(image)
    if isinstance(model.decoder, UNet):
        return [*maps, model.decoder(maps)]
    if isinstance(model.decoder, FPN):
        x = model.decoder.fpn(maps[-4:])
        for upsample in model.decoder.upsample:
            x = upsample(x)
        return [*maps[-4:], x]
    return list(maps)


def _weights(shape: Sequence[int]) -> np.ndarray:
    """A weight for each value of a map, all different: the gradient is that of their sum."""
    return np.cos(np.arange(np.prod(shape[1:]), dtype=np.float32)).reshape(shape[1:])


def compare_maps(ours: Sequence[np.ndarray], originals: Sequence[np.ndarray]) -> list[Difference]:
    """How far each of our maps is from the original's."""
    return [
        _difference(f"map {number}", mine, other, FEATURE_TOLERANCE)
        for number, (mine, other) in enumerate(zip(ours, originals, strict=True), start=1)
    ]


def compare_gradients(model: "Segmenter", theirs: Original, image: np.ndarray) -> Difference:
    """How far the gradient of the image is from the original's."""
    gradients = our_gradient(model, image), torch_gradient(theirs, image)
    return _difference("input gradient", *gradients, GRADIENT_TOLERANCE)


def _difference(what: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Difference:
    size = float(np.abs(theirs).max())
    same = ours.shape == theirs.shape
    apart = float(np.abs(ours - theirs).max()) if same else np.inf
    return Difference(what, ours.shape, size, apart, tolerance)


def random_image(channels: int, size: int) -> np.ndarray:
    """An image as a network sees it: values about 0.2, as reflectance is."""
    chance = np.random.default_rng(0)
    return chance.gamma(2.0, 0.1, (1, size, size, channels)).astype(np.float32)


def converted_model(source: Path, like: str | None = None) -> tuple[dict, "Segmenter"]:
    """The manifest of a checkpoint's conversion, and our model filled with it.

    What the file does not hold, a decoder's head or all of it, stays abstract.
    """
    from jaxcrop.models.segmenter import abstract_segmenter  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        manifest = convert(source, Path(folder) / "converted", like)
        model = abstract_segmenter(
            manifest["architecture"],
            manifest["decoder"] or "linear",
            manifest["in_channels"],
            NUM_CLASSES,
        )
        load_weights(model, Path(folder) / "converted")
    return manifest, model


def verify_against_torch(
    source: Path, like: str | None = None, *, size: int = 256
) -> list[Difference]:
    """Convert a checkpoint, and compare our model with the original one that holds the same file.

    Raises InputError where the file cannot be converted or the `torch` extra is not installed.
    """
    manifest, model = converted_model(source, like)
    wrapper, grammar = parse_layout(manifest["layout"])
    channels = manifest["in_channels"]
    theirs = original(grammar.name, wrapper.name, manifest["architecture"], channels, size=size)
    tensors = tensors_by_name(read_checkpoint(source))
    fill_original(theirs, unwrap(tensors, wrapper, source.name).inside)
    image = random_image(channels, size)
    maps = compare_maps(our_maps(model, image), torch_maps(theirs, image))
    return [*maps, compare_gradients(model, theirs, image)]
