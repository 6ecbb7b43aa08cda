"""Our backbones beside the original ones: the same weights, the same maps, the same gradients."""

import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")

LEAVES = {"running_mean": "mean", "running_var": "var"}
AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def copy_weights(
    reference,
    model: nnx.Module,
    names: Sequence[tuple[str, str | Callable[[re.Match], str]]] = (),
    dropped: str = "$",
) -> nnx.Module:
    """Fill an abstract model with the tensors of a torch module, and return it in eval mode.

    `names` are pairs for `re.sub`; `dropped` matches the torch names that the model has no place
    for. Fails unless every other tensor finds a variable of its shape, and every variable a tensor.
    """
    tensors = {}
    for torch_name, tensor in reference.state_dict().items():
        if re.match(dropped, torch_name) or torch_name.endswith("num_batches_tracked"):
            continue
        name, array = torch_name, tensor.numpy()
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        *path, leaf = name.split(".")
        if leaf == "weight":
            leaf = "scale" if array.ndim == 1 else "kernel"
            array = array.transpose(AXES[array.ndim])
        tensors[".".join([*path, LEAVES.get(leaf, leaf)])] = array
    state = nnx.state(model)
    variables = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    assert set(tensors) == set(variables)
    for name, variable in variables.items():
        assert variable.shape == tensors[name].shape, name
        variable.set_value(jax.device_put(tensors[name].copy()))  # PyTorch changes its own in place
    nnx.update(model, state)
    model.eval()
    return model


def image_of(height: int, width: int) -> np.ndarray:
    """Two random images of three bands."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, height, width, 3)).astype(np.float32)


def nchw(image):
    return torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))


def our_maps(model: nnx.Module, image) -> list[np.ndarray]:
    definition, state = nnx.split(model)
    maps = jax.jit(lambda state, image: nnx.merge(definition, state)(image))(state, image)
    return [np.asarray(x) for x in maps]


def our_maps_and_gradient(model: nnx.Module, image) -> tuple[list[np.ndarray], np.ndarray]:
    """The maps, and the gradient of their weighted sum by the image."""
    definition, state = nnx.split(model)

    @jax.jit
    def compute(state, image):
        state = jax.tree.map(lambda leaf: leaf.astype(image.dtype), state)
        maps, pull = jax.vjp(nnx.merge(definition, state), image)
        (gradient,) = pull(tuple(_measures(x.shape).astype(x.dtype) for x in maps))
        return maps, gradient

    maps, gradient = compute(state, image)
    return [np.asarray(x) for x in maps], np.asarray(gradient)


def their_maps(forward: Callable, image) -> list[np.ndarray]:
    """The maps that a torch function (b, c, h, w) -> maps (b, h, w, c) makes."""
    with torch.no_grad():
        return [x.numpy() for x in forward(nchw(image))]


def their_maps_and_gradient(forward: Callable, image) -> tuple[list[np.ndarray], np.ndarray]:
    x = nchw(image).requires_grad_()
    maps = forward(x)
    sum((y * torch.from_numpy(_measures(y.shape)).to(y.dtype)).sum() for y in maps).backward()
    return [y.detach().numpy() for y in maps], x.grad.permute(0, 2, 3, 1).numpy()


def assert_close(got, want, tolerance: float) -> None:
    """Each array equal within `tolerance` of its largest value."""
    assert [x.shape for x in got] == [x.shape for x in want]
    errors = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(got, want, strict=True)]
    assert max(errors) < tolerance, [f"{error:.1e}" for error in errors]


def assert_equal_in_double_precision(model: nnx.Module, forward: Callable, image) -> None:
    """Maps and gradient equal to rounding; `forward` is of a reference in double precision."""
    image = image.astype(np.float64)
    with jax.enable_x64(True):
        maps, gradient = our_maps_and_gradient(model, image)
    want_maps, want = their_maps_and_gradient(forward, image)
    assert_close([*maps, gradient], [*want_maps, want], 1e-9)


def bfloat16_errors(model: nnx.Module, image, want) -> np.ndarray:
    """How far, for each map, a bfloat16 image leads from `want`, relative in the L2 norm."""
    maps = our_maps(model, jnp.asarray(image, jnp.bfloat16))
    assert all(x.dtype == jnp.bfloat16 for x in maps)
    return relative_errors(maps, want)


def relative_errors(got, want) -> np.ndarray:
    errors = [a.astype(np.float32) - b for a, b in zip(got, want, strict=True)]
    return np.array(
        [np.linalg.norm(error) / np.linalg.norm(b) for error, b in zip(errors, want, strict=True)]
    )


def _measures(shape: Sequence[int]) -> np.ndarray:
    """How much each value of a map counts in the weighted sum: all maps alike, no two values."""
    size = int(np.prod(shape))
    return np.cos(np.arange(size)).reshape(shape) / np.sqrt(size)
