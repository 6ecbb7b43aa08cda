"""Convolutions and their gradients beside PyTorch's, in each of the ways that there are."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcrop.models.convolutions import convolve, convolve_upsampled

torch = pytest.importorskip("torch")


def _nhwc(tensor):
    return tensor.detach().permute(0, 2, 3, 1).numpy()


def _assert_near(found, right, share):
    """Within this share of the largest value."""
    np.testing.assert_allclose(found, right, atol=share * np.abs(right).max(), rtol=0)


def _with_gradients(function, x, kernel, slope):
    """Value, gradient of the image and gradient of the kernel, as one program."""

    @jax.jit
    def program(x, kernel, slope):
        value, pull = jax.vjp(function, x, kernel)
        return value, *pull(slope)

    return program(*(np.float32(array) for array in (_nhwc(x), kernel, _nhwc(slope))))


CASES = [
    pytest.param((64, 64), 3, 1, (16, 16), id="in fours"),
    pytest.param((96, 64), 3, 1, (7, 40), id="in fours, fewer channels"),
    pytest.param((64, 80), 3, 1, (128, 4), id="in fours, more channels"),
    pytest.param((16, 6), 3, 1, (9, 8), id="in pairs"),
    pytest.param((3, 20), 5, 1, (9, 8), id="in pairs, of a wider kernel"),
    pytest.param((64, 64), 3, 1, (16, 18), id="of a width that four do not divide"),
    pytest.param((16, 6), 3, 1, (8, 9), id="of a width that two do not divide"),
    pytest.param((64, 32), 3, 1, (16, 16), id="of few channels"),
    pytest.param((64, 64), 3, 2, (32, 32), id="with a stride"),
    pytest.param((40, 24), 3, 2, (9, 14), id="with a stride, of an odd height"),
    pytest.param((40, 24), 3, 3, (9, 14), id="with a stride, of a width that it does not divide"),
    pytest.param((16, 24), 3, 1, (2, 2), id="on fewer pixels than taps"),
    pytest.param((16, 24), 3, 2, (3, 4), id="with a stride, to fewer pixels than taps"),
    pytest.param((13, 64), 7, 2, (16, 12), id="in cells, with a stride"),
    pytest.param((16, 6), 3, 1, (8, 12), id="in cells"),
    pytest.param((3, 20), 5, 1, (6, 8), id="in cells, of a wider kernel"),
    pytest.param((4, 8), 3, 2, (6, 8), id="in cells, of a narrow kernel with a stride"),
]


@pytest.mark.parametrize(("channels", "kernel", "stride", "size"), CASES)
@pytest.mark.usefixtures("backend")
def test_convolve_equals_torch(channels, kernel, stride, size):
    """In float32 within 1e-5 of the largest value, against PyTorch in float64."""
    rng = np.random.default_rng(0)
    inputs, outputs = channels
    x = torch.tensor(rng.normal(size=(2, inputs, *size)), requires_grad=True)
    weight = torch.tensor(rng.normal(size=(outputs, inputs, kernel, kernel)), requires_grad=True)
    want = torch.nn.functional.conv2d(x, weight, stride=stride, padding=kernel // 2)
    slope = torch.tensor(rng.normal(size=want.shape))
    want.backward(slope)
    ours = weight.detach().permute(2, 3, 1, 0).numpy()
    got, of_x, of_kernel = _with_gradients(
        lambda x, kernel: convolve(x, kernel, stride, ((len(kernel) // 2,) * 2,) * 2),
        x,
        ours,
        slope,
    )
    _assert_near(got, _nhwc(want), 1e-5)
    _assert_near(of_x, _nhwc(x.grad), 1e-5)
    _assert_near(of_kernel, weight.grad.permute(2, 3, 1, 0).numpy(), 1e-5)


@pytest.mark.parametrize(("channels", "kernel", "stride", "size"), CASES)
def test_in_a_loop_all_are_in_the_order_of_axes_that_xla_computes_fast(
    channels, kernel, stride, size
):
    """XLA brings those of a CPU's program into it, but none in a loop, where they take 40 times."""
    x = np.ones((2, *size, channels[0]), np.float32)
    taps = np.ones((kernel, kernel, *channels), np.float32)

    def one(_, carry):
        y, pull = jax.vjp(lambda *c: convolve(*c, stride, ((kernel // 2,) * 2,) * 2), *carry)
        return pull(y)

    program = jax.jit(lambda *carry: jax.lax.fori_loop(0, 3, one, carry))
    text = program.lower(x, taps).compile().as_text()
    orders = re.findall(r" convolution\(.*dim_labels=(\S+?),? ", text)
    assert len(orders) == text.count(" convolution(") >= 3
    assert set(orders) == {"b01f_01io->b01f"}


@pytest.mark.parametrize("width", [16, 18])
def test_fours_need_half_the_products(width):
    """As XLA counts them; the sums of pixels and of taps come on top."""

    def products(width):
        shapes = (4, 16, width, 256), (3, 3, 256, 256)
        program = jax.jit(lambda x, kernel: convolve(x, kernel, 1, ((1, 1), (1, 1))))
        lowered = program.lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
        return lowered.compile().cost_analysis()["flops"]

    usual = 2 * 4 * 16 * width * 9 * 256**2
    share = 0.5 if width % 4 == 0 else 0.9
    assert 0.95 * share < products(width) / usual < 1.15 * share


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 8)])
@pytest.mark.parametrize("channels", [6, 256])
@pytest.mark.usefixtures("backend")
def test_convolve_upsampled_equals_torch(shape, channels):
    """In float32 within 1e-5 of the largest value, against PyTorch in float64."""
    x = torch.randn(2, channels, *shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, channels, 3, 3, dtype=torch.float64, requires_grad=True)
    upsampled = torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    want = torch.nn.functional.conv2d(upsampled, weight, padding=1)
    slope = torch.randn(want.shape, dtype=torch.float64)
    want.backward(slope)
    kernel = weight.detach().permute(2, 3, 1, 0).numpy()
    got, of_x, of_kernel = _with_gradients(convolve_upsampled, x, kernel, slope)
    _assert_near(got, _nhwc(want), 1e-5)
    _assert_near(of_x, _nhwc(x.grad), 1e-5)
    _assert_near(of_kernel, weight.grad.permute(2, 3, 1, 0).numpy(), 1e-5)


@pytest.mark.parametrize("channels", [255, 256])
def test_convolve_upsampled_in_bfloat16_adds_in_float32(channels):
    """It is off by 1/420, as the right values rounded are; sums in bfloat16 would be by 1/280."""
    x = jax.nn.relu(jax.random.normal(jax.random.key(0), (2, 8, 8, channels), jnp.bfloat16))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, 64), jnp.bfloat16)
    got = convolve_upsampled(x, kernel)
    assert got.dtype == jnp.bfloat16
    want = convolve_upsampled(x.astype(jnp.float32), kernel.astype(jnp.float32))
    error = jnp.linalg.norm(got.astype(jnp.float32) - want) / jnp.linalg.norm(want)
    assert error < 1 / 350
