import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcrop.data.bands import BandInput
from jaxcrop.errors import InputError
from jaxcrop.models.draws import Draws
from jaxcrop.models.layers import BatchNorm, Conv
from jaxcrop.weights import load_converted, load_weights, read_manifest
from jaxcrop.weights.converted import save_converted
from jaxcrop.weights.safetensors import Spec


class Backbone(nnx.Module):
    def __init__(self, in_channels, *, rngs):
        self.conv1 = Conv(in_channels, 4, 3, rngs=rngs)
        self.layers = nnx.List([BatchNorm(4, rngs=rngs)])


class Tiny(nnx.Module):
    """A segmenter in the names of its parts; `head` is a decoder's."""

    def __init__(self, in_channels, head="head", *, rngs):
        self.backbone = Backbone(in_channels, rngs=rngs)
        self.decoder = nnx.Dict({head: Conv(4, 2, 1, rngs=rngs)})


def tiny(in_channels, head="head"):
    return Tiny(in_channels, head, rngs=Draws(0))


def manifest(family="ssl4eo", in_channels=3):
    return {
        "source": "x.pth",
        "sha256": "0" * 64,
        "like": "tiny",
        "published": False,
        "family": family,
        "layout": "tiny",
        "architecture": "tiny",
        "decoder": None,
        "in_channels": in_channels,
        "bands": ["B04", "B03", "B02"],
        "offset": [0.0, 1.0, 0.0],
        "divisor": [1.0, 2.0, 3.0],
        "clip": True,
        "licence": "none",
        "dropped": {},
        "filled": {},
        "jaxcrop_version": "0",
    }


def state(in_channels=3):
    chance = np.random.default_rng(0)
    return {
        "backbone.conv1.kernel": chance.random((3, 3, in_channels, 4), np.float32),
        **{
            f"backbone.layers.0.{name}": chance.random(4, np.float32)
            for name in ("scale", "bias", "mean", "var")
        },
        "decoder.head.kernel": chance.random((1, 1, 4, 2), np.float32),
        "classifier.head.kernel": chance.random((4, 10), np.float32),
    }


def save(path, fields, tensors):
    specs = {name: Spec(array.dtype, array.shape) for name, array in tensors.items()}
    save_converted(path, fields, specs, tensors.values())


def test_what_is_saved_is_loaded(tmp_path):
    save(tmp_path / "deep" / "out", manifest(), state())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    loaded, tensors = load_converted(tmp_path / "deep" / "out")
    assert loaded == manifest()
    assert set(tensors) == set(state())
    for name, array in state().items():
        np.testing.assert_array_equal(tensors[name], array)
    _, bands = read_manifest(tmp_path / "deep" / "out")
    assert bands == BandInput(("B04", "B03", "B02"), (0.0, 1.0, 0.0), (1.0, 2.0, 3.0), clip=True)


def test_a_failed_save_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        save(tmp_path / "out", manifest() | {"dropped": object()}, state())

    def breaks_off():
        yield next(iter(state().values()))
        raise InputError("not finite")

    specs = {name: Spec(array.dtype, array.shape) for name, array in state().items()}
    with pytest.raises(InputError):
        save_converted(tmp_path / "out", manifest(), specs, breaks_off())
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_bad_input(tmp_path):
    save(tmp_path / "out", manifest(), state())
    file = tmp_path / "out" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"weights\.safetensors cannot be read"):
        load_converted(tmp_path / "out")
    file.unlink()
    with pytest.raises(InputError, match="convert the weights again"):
        load_converted(tmp_path / "out")


@pytest.mark.parametrize("abstract", [False, True])
def test_a_backbone_and_a_decoder_of_the_same_kind_are_filled(tmp_path, abstract):
    save(tmp_path / "out", manifest(), state())
    model = nnx.eval_shape(lambda: tiny(3)) if abstract else tiny(3)
    assert load_weights(model, tmp_path / "out") == manifest()
    expected = state()
    np.testing.assert_array_equal(
        model.backbone.conv1.kernel[...], expected["backbone.conv1.kernel"]
    )
    np.testing.assert_array_equal(
        model.decoder["head"].kernel[...], expected["decoder.head.kernel"]
    )
    for name in ("scale", "bias", "mean", "var"):
        variable = getattr(model.backbone.layers[0], name)
        np.testing.assert_array_equal(variable[...], expected[f"backbone.layers.0.{name}"])
        assert isinstance(variable, nnx.BatchStat if name in ("mean", "var") else nnx.Param)
    assert isinstance(model.backbone.conv1.kernel[...], jnp.ndarray)


def test_a_decoder_of_another_kind_is_left_as_it_is(tmp_path):
    save(tmp_path / "out", manifest(), state())
    model = tiny(3, head="other")
    before = np.asarray(model.decoder["other"].kernel[...])
    load_weights(model, tmp_path / "out")
    np.testing.assert_array_equal(model.decoder["other"].kernel[...], before)
    np.testing.assert_array_equal(
        model.backbone.conv1.kernel[...], state()["backbone.conv1.kernel"]
    )


def test_only_an_imagenet_stem_is_extended(tmp_path):
    save(tmp_path / "imagenet", manifest("imagenet"), state())
    save(tmp_path / "ssl4eo", manifest("ssl4eo"), state())
    model = tiny(13)
    load_weights(model, tmp_path / "imagenet")
    channel = state()["backbone.conv1.kernel"][:, :, 2] * np.float32(3 / 13)
    np.testing.assert_array_equal(model.backbone.conv1.kernel[:, :, 11], channel)
    with pytest.raises(InputError, match=r"ssl4eo takes 3 channels \(B04, B03, B02\), not 13"):
        load_weights(model, tmp_path / "ssl4eo")


def test_a_position_embedding_of_another_grid_is_resized_as_timm_does_it(tmp_path):
    torch = pytest.importorskip("torch")
    import oracles

    from jaxcrop.models.segmenter import abstract_segmenter
    from weights_convert.convert import convert

    timm = oracles.timm()
    big = timm.create_model("vit_small_patch16_224", img_size=288, in_chans=13, num_classes=0)
    torch.save(oracles.randomise(big, 0).state_dict(), tmp_path / "big.pth")
    convert(tmp_path / "big.pth", tmp_path / "out")
    model = abstract_segmenter("vit-s16", "linear", 13, 6)
    load_weights(model, tmp_path / "out")
    want = timm.layers.resample_abs_pos_embed(big.pos_embed, (14, 14), (18, 18))
    got = model.backbone.pos_embed[...]
    np.testing.assert_allclose(got, want.detach().numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("edit", "difference"),
    [
        (lambda s: s.pop("backbone.layers.0.var"), r"lacks backbone\.layers\.0\.var"),
        (lambda s: s.pop("backbone.conv1.kernel"), r"lacks backbone\.conv1\.kernel"),
        (lambda s: s.update({"backbone.fc": np.ones(1, np.float32)}), "has besides backbone.fc"),
        (
            lambda s: s.update({"backbone.layers.0.var": np.ones(5, np.float32)}),
            r"has another shape for backbone\.layers\.0\.var \(5,\) for \(4,\)",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_untouched(tmp_path, edit, difference):
    tensors = state()
    edit(tensors)
    save(tmp_path / "out", manifest("imagenet"), tensors)
    model = tiny(3)
    before = np.asarray(model.backbone.conv1.kernel[...])
    with pytest.raises(InputError, match=rf"out does not fit the model: it {difference}"):
        load_weights(model, tmp_path / "out")
    np.testing.assert_array_equal(model.backbone.conv1.kernel[...], before)
