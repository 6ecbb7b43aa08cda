import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcrop.data.bands import BandInput
from jaxcrop.errors import InputError
from jaxcrop.models.layers import BatchNorm, Conv
from jaxcrop.weights import load_converted, load_weights, read_manifest
from jaxcrop.weights.converted import save_converted


class Tiny(nnx.Module):
    def __init__(self, in_channels, *, rngs):
        self.conv1 = Conv(in_channels, 4, 3, rngs=rngs)
        self.layers = nnx.List([BatchNorm(4, rngs=rngs)])


def tiny(in_channels):
    return Tiny(in_channels, rngs=nnx.Rngs(0))


def manifest(family="ssl4eo", in_channels=3):
    return {
        "source": "x.pth",
        "sha256": "0" * 64,
        "family": family,
        "layout": "tiny",
        "architecture": "tiny",
        "in_channels": in_channels,
        "bands": ["B04", "B03", "B02"],
        "divisor": [1.0, 2.0, 3.0],
        "clip": True,
        "licence": "none",
        "dropped": {},
        "jaxcrop_version": "0",
    }


def state(in_channels=3):
    chance = np.random.default_rng(0)
    norm = {name: chance.random(4, np.float32) for name in ("scale", "bias", "mean", "var")}
    kernel = chance.random((3, 3, in_channels, 4), np.float32)
    return {"conv1": {"kernel": kernel}, "layers": {"0": norm}}


def test_what_is_saved_is_loaded(tmp_path):
    save_converted(tmp_path / "deep" / "out", manifest(), state())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    loaded, params = load_converted(tmp_path / "deep" / "out")
    assert loaded == manifest()
    np.testing.assert_array_equal(params["layers"]["0"]["var"], state()["layers"]["0"]["var"])
    _, bands = read_manifest(tmp_path / "deep" / "out")
    assert bands == BandInput(("B04", "B03", "B02"), (1.0, 2.0, 3.0), clip=True)


def test_a_failed_save_leaves_nothing(tmp_path):
    unwritable = manifest() | {"dropped": object()}
    with pytest.raises(TypeError):
        save_converted(tmp_path / "out", unwritable, state())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("abstract", [False, True])
def test_a_backbone_is_filled(tmp_path, abstract):
    save_converted(tmp_path / "out", manifest(), state())
    module = nnx.eval_shape(lambda: tiny(3)) if abstract else tiny(3)
    assert load_weights(module, tmp_path / "out") == manifest()
    np.testing.assert_array_equal(module.conv1.kernel[...], state()["conv1"]["kernel"])
    for name, value in state()["layers"]["0"].items():
        variable = getattr(module.layers[0], name)
        np.testing.assert_array_equal(variable[...], value)
        assert isinstance(variable, nnx.BatchStat if name in ("mean", "var") else nnx.Param)
    assert isinstance(module.conv1.kernel[...], jnp.ndarray)


def test_only_an_imagenet_stem_is_extended(tmp_path):
    save_converted(tmp_path / "imagenet", manifest("imagenet"), state())
    save_converted(tmp_path / "ssl4eo", manifest("ssl4eo"), state())
    module = tiny(13)
    load_weights(module, tmp_path / "imagenet")
    channel = state()["conv1"]["kernel"][:, :, 2] * np.float32(3 / 13)
    np.testing.assert_array_equal(module.conv1.kernel[:, :, 11], channel)
    with pytest.raises(InputError, match=r"ssl4eo takes 3 channels \(B04, B03, B02\), not 13"):
        load_weights(module, tmp_path / "ssl4eo")


@pytest.mark.parametrize(
    ("edit", "difference"),
    [
        (lambda s: s["layers"]["0"].pop("var"), r"lacks layers\.0\.var"),
        (lambda s: s.pop("conv1"), r"lacks conv1\.kernel"),
        (lambda s: s.update(fc=np.ones(1, np.float32)), "has besides fc"),
        (
            lambda s: s["layers"]["0"].update(var=np.ones(5, np.float32)),
            r"has another shape for layers\.0\.var \(5,\) for \(4,\)",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_untouched(tmp_path, edit, difference):
    params = state()
    edit(params)
    save_converted(tmp_path / "out", manifest("imagenet"), params)
    module = tiny(3)
    before = np.asarray(module.conv1.kernel[...])
    with pytest.raises(InputError, match=rf"out does not fit the model: it {difference}"):
        load_weights(module, tmp_path / "out")
    np.testing.assert_array_equal(module.conv1.kernel[...], before)
