import json

import jax
import numpy as np
import oracles
import pytest
from flax import nnx

from jaxcrop.errors import InputError
from jaxcrop.models.resnet import resnet50
from jaxcrop.weights import load_converted, load_weights
from jaxcrop.weights.catalogue import BAND_INPUT, RGB
from jaxcrop.weights.converted import MANIFEST_FIELDS, flatten
from weights_convert.convert import convert

torch = pytest.importorskip("torch")


def timm_resnet50(in_channels, classes):
    model = oracles.timm().create_model("resnet50", in_chans=in_channels, num_classes=classes)
    return oracles.randomise(model, seed=in_channels)


def torchvision_resnet50():
    return oracles.randomise(oracles.torchvision().models.resnet50(), seed=1)


def satlas_resnet50():
    """The original library's model, whose backbone's names its files hold behind prefixes."""
    oracles.torchvision()
    satlas = pytest.importorskip("satlaspretrain_models")
    model = satlas.Model(9, backbone=satlas.utils.Backbone.RESNET50, fpn=True)
    return oracles.randomise(model, seed=9)


def satlas_file(model, backbone_prefix="backbone."):
    """The model's state under the names of the published files (weights_spec 3.2)."""
    prefixes = {
        "backbone.": backbone_prefix,
        "fpn.": "intermediates.0.",
        "upsample.": "intermediates.1.",
    }
    state = {"heads.0.layers.0.weight": torch.ones(3)}
    for name, value in model.state_dict().items():
        ours, theirs = next(pair for pair in prefixes.items() if name.startswith(pair[0]))
        state[theirs + name.removeprefix(ours)] = value
    return state


def torch_features(model, image):
    """The five maps of a torch ResNet, channels last."""
    with torch.no_grad():
        x = torch.from_numpy(image).permute(0, 3, 1, 2)
        features = [torch.relu(model.bn1(model.conv1(x)))]
        x = model.maxpool(features[0])
        for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = layer(x)
            features.append(x)
    return [feature.permute(0, 2, 3, 1).numpy() for feature in features]


def save(tmp_path, state, name="source.pth"):
    torch.save(state, tmp_path / name)
    return tmp_path / name


def assert_features_equal(converted, model, in_channels):
    backbone = nnx.eval_shape(lambda: resnet50(in_channels, rngs=nnx.Rngs(0)))
    load_weights(backbone, converted)
    backbone.eval()
    graph, state = nnx.split(backbone)
    image = np.random.default_rng(0).random((2, 96, 64, in_channels), dtype=np.float32)
    ours = jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, image)
    for mine, theirs in zip(ours, torch_features(model, image), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


def test_torchgeo_ssl4eo(tmp_path):
    model = timm_resnet50(13, classes=0)
    manifest = convert(save(tmp_path, model.state_dict()), tmp_path / "out")
    assert manifest["family"] == "ssl4eo"
    assert manifest["layout"] == "torchgeo-ssl4eo-resnet50"
    assert manifest["in_channels"] == 13
    assert manifest["bands"] == list(BAND_INPUT["ssl4eo"].bands)
    assert manifest["licence"] == "CC-BY-4.0"
    assert set(manifest) == set(MANIFEST_FIELDS)
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert_features_equal(tmp_path / "out", model, 13)


@pytest.mark.parametrize("prefix", ["backbone.", "backbone.backbone."])
def test_original_satlas(tmp_path, prefix):
    model = satlas_resnet50()
    manifest = convert(save(tmp_path, satlas_file(model, prefix)), tmp_path / "out")
    assert manifest["family"] == "satlas"
    assert manifest["layout"] == "satlaspretrain-resnet50"
    assert manifest["bands"] == list(BAND_INPUT["satlas"].bands)
    assert manifest["bands"][:3] == ["B04", "B03", "B02"]
    assert manifest["divisor"] == [3558] * 3 + [8160] * 6
    assert manifest["clip"] is True
    reasons = {
        "heads.0.layers.0.weight": "task head",
        "intermediates.0.fpn.inner_blocks.0.0.weight": "feature pyramid",
        "intermediates.1.layers.0.0.weight": "upsampling",
        f"{prefix}resnet.fc.weight": "classifier",
        f"{prefix}resnet.layer4.2.bn3.num_batches_tracked": "counter",
    }
    for name, reason in reasons.items():
        assert reason in manifest["dropped"][name]
    if prefix == "backbone.":
        assert_features_equal(tmp_path / "out", model.backbone.resnet, 9)


def test_torchvision_imagenet_and_its_extension_to_13_bands(tmp_path):
    model = torchvision_resnet50()
    manifest = convert(save(tmp_path, model.state_dict()), tmp_path / "out")
    assert manifest["family"] == "imagenet"
    assert manifest["layout"] == "torchvision-or-timm-resnet50"
    assert manifest["in_channels"] == 3
    assert manifest["bands"] == list(BAND_INPUT["imagenet"].bands)
    assert {"fc.weight", "fc.bias"} < set(manifest["dropped"])
    assert_features_equal(tmp_path / "out", model, 3)
    extended = timm_resnet50(13, classes=0)
    adapt = oracles.timm().models.adapt_input_conv
    extended.load_state_dict(
        {
            name: adapt(13, value) if name == "conv1.weight" else value
            for name, value in model.state_dict().items()
            if not name.startswith("fc.")
        }
    )
    assert_features_equal(tmp_path / "out", extended, 13)


def test_timm_imagenet_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    model = timm_resnet50(3, classes=1000)
    safetensors.save_file(model.state_dict(), tmp_path / "model.safetensors")
    manifest = convert(tmp_path / "model.safetensors", tmp_path / "out")
    assert manifest["family"] == "imagenet"
    assert manifest["layout"] == "torchvision-or-timm-resnet50"
    assert_features_equal(tmp_path / "out", model, 3)


# What follows tests names and shapes: every tensor is one stored number, expanded.


def resnet50_state(in_channels, classifier=False):
    """A complete state dict of a ResNet-50 whose file takes a few kilobytes."""
    with torch.device("meta"):
        model = oracles.torchvision().models.resnet50()
        model.conv1 = torch.nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
    return {
        name: torch.ones(1, dtype=value.dtype).as_strided(value.shape, (0,) * value.ndim)
        for name, value in model.state_dict().items()
        if classifier or not name.startswith("fc.")
    }


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def test_torchgeo_satlas(tmp_path):
    manifest = convert(save(tmp_path, resnet50_state(9)), tmp_path / "out")
    assert manifest["family"] == "satlas"
    assert manifest["layout"] == "torchgeo-satlas-resnet50"
    assert manifest["licence"] == "ODC-BY"


def test_every_tensor_is_used_or_named(tmp_path):
    state = resnet50_state(13, classifier=True)
    manifest = convert(save(tmp_path, state), tmp_path / "out")
    _, params = load_converted(tmp_path / "out")
    assert len(flatten(params)) + len(manifest["dropped"]) == len(state)


def test_moco_training_checkpoint(tmp_path):
    encoder = resnet50_state(13) | {"fc.0.weight": torch.ones(1), "fc.2.bias": torch.ones(1)}
    checkpoint = {
        "epoch": 100,
        "arch": "resnet50",
        "state_dict": prefixed(encoder, "module.encoder_q.")
        | prefixed(encoder, "module.encoder_k.")
        | {"module.queue": torch.ones(2, 2), "module.queue_ptr": torch.ones(1)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(1)}}, "param_groups": [{}]},
    }
    manifest = convert(save(tmp_path, checkpoint), tmp_path / "out")
    assert manifest["layout"] == "ssl4eo-moco-resnet50"
    assert "momentum encoder" in manifest["dropped"]["state_dict.module.encoder_k.conv1.weight"]
    assert "optimiser" in manifest["dropped"]["optimizer.state.0.momentum_buffer"]


def test_dino_training_checkpoint(tmp_path):
    import argparse

    checkpoint = {
        "student": prefixed(resnet50_state(13), "module.backbone."),
        "teacher": prefixed(resnet50_state(13), "module.backbone.")
        | {"module.head.mlp.0.weight": torch.ones(1)},
        "args": argparse.Namespace(arch="resnet50"),
        "dino_loss": {"center": torch.ones(1, 4)},
    }
    manifest = convert(save(tmp_path, checkpoint), tmp_path / "out")
    assert manifest["layout"] == "ssl4eo-dino-resnet50"
    assert "student" in manifest["dropped"]["student.module.backbone.conv1.weight"]


def test_three_channels_without_evidence_ask_for_the_family(tmp_path):
    source = save(tmp_path, resnet50_state(3))
    with pytest.raises(InputError, match=r"imagenet or satlas or ssl4eo.*--family"):
        convert(source, tmp_path / "out")
    manifest = convert(source, tmp_path / "out", family="satlas")
    assert (manifest["family"], manifest["bands"]) == ("satlas", list(RGB))
    assert manifest["divisor"] == [3558] * 3


def test_three_channels_are_known_by_the_hash_in_their_name(tmp_path):
    name = "resnet50_sentinel2_rgb_moco-2b57ba8b.pth"
    source = save(tmp_path, resnet50_state(3, classifier=True), name)
    manifest = convert(source, tmp_path / "out")
    assert manifest["family"] == "ssl4eo"
    assert manifest["divisor"] == [10_000] * 3


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda s: s.pop("layer3.5.bn2.running_var"), r"lacks layer3\.5\.bn2\.var"),
        (lambda s: s.pop("conv1.weight"), r"none of the known layouts"),
        (lambda s: s.update({"extra.weight": torch.ones(1)}), r"does not know: extra\.weight"),
        (lambda s: s.update({"layer3.5.bn4.weight": torch.ones(1)}), r"know: layer3\.5\.bn4"),
        (
            lambda s: s.update({"layer1.3.conv1.weight": torch.ones(64, 256, 1, 1)}),
            r"has besides layer1\.3\.conv1\.kernel",
        ),
        (
            lambda s: s.update({"layer1.0.conv2.weight": torch.ones(64, 64, 1, 1)}),
            r"another shape for layer1\.0\.conv2\.kernel \(1, 1, 64, 64\) for \(3, 3, 64, 64\)",
        ),
        (lambda s: s.update({"bn1.bias": torch.ones(64, 1)}), r"another shape for bn1\.bias"),
        (
            lambda s: s.update({"layer1.0.conv2.weight": torch.ones(64)}),
            r"another shape for layer1\.0\.conv2\.kernel",
        ),
        (lambda s: s.update({"conv1.weight": torch.ones(64)}), "no 2-D convolution"),
        (lambda s: s.update({"conv1.weight": torch.ones(64, 7, 7, 7)}), "takes 7 channels"),
        (lambda s: s.update({"bn1.bias": torch.full((64,), torch.nan)}), r"bn1\.bias.*not finite"),
        (
            lambda s: s.update({"bn1.bias": torch.full((64,), 1e300, dtype=torch.float64)}),
            r"bn1\.bias.*not finite in float32",
        ),
        (lambda s: s.update({"bn1.bias": torch.ones(64, dtype=torch.int64)}), "stores bn1.bias as"),
    ],
)
def test_unfitting_files_are_refused_and_leave_nothing(tmp_path, edit, reason):
    state = resnet50_state(13)
    edit(state)
    with pytest.raises(InputError, match=rf"source\.pth.*{reason}"):
        convert(save(tmp_path, state), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source.pth"]


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("resnet18", "a ResNet-18 or ResNet-34"),
        ("resnet152", "a ResNet-101 or ResNet-152"),
        ("wide_resnet50_2", r"another shape for layer1\.0\.bn1\.bias \(128,\) for \(64,\)"),
        ("vit_b_16", "a vision transformer"),
        ("swin_v2_t", "a Swin transformer"),
    ],
)
def test_other_architectures_are_refused_by_name(tmp_path, architecture, reason):
    models = oracles.torchvision().models
    with torch.device("meta"):
        meta = getattr(models, architecture)().state_dict()
    state = {
        name: torch.ones(1).as_strided(value.shape, (0,) * value.ndim)
        for name, value in meta.items()
    }
    with pytest.raises(InputError, match=reason):
        convert(save(tmp_path, state), tmp_path / "out")


def test_a_timm_vision_transformer_is_refused_by_name(tmp_path):
    state = {"cls_token": torch.ones(1), "blocks.0.attn.qkv.weight": torch.ones(1)}
    with pytest.raises(InputError, match="a vision transformer"):
        convert(save(tmp_path, state), tmp_path / "out")


def test_the_family_must_agree_with_the_channels(tmp_path):
    with pytest.raises(InputError, match="takes 13 channels, unlike any file of imagenet"):
        convert(save(tmp_path, resnet50_state(13)), tmp_path / "out", family="imagenet")
    with pytest.raises(InputError, match="unknown family mars"):
        convert(save(tmp_path, resnet50_state(13)), tmp_path / "out", family="mars")


def test_an_existing_destination_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists already"):
        convert(save(tmp_path, resnet50_state(13)), tmp_path / "out")


def test_two_names_for_one_tensor_are_refused(tmp_path):
    state = {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}
    with pytest.raises(InputError, match=r"two tensors that come to the name a\.b"):
        convert(save(tmp_path, state), tmp_path / "out")
