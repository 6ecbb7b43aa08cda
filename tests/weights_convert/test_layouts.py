"""Every published layout is recognised from the file; every tensor in it is used or named.

What is tested is names and shapes: every tensor is one stored number, expanded.
"""

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from checkpoints import wrapped  # noqa: E402
from matrix import CASES, Case  # noqa: E402

from jaxcrop.errors import InputError  # noqa: E402
from jaxcrop.weights import CATALOGUE  # noqa: E402
from jaxcrop.weights.converted import MANIFEST_FIELDS  # noqa: E402
from weights_convert.convert import plan  # noqa: E402
from weights_convert.originals import original  # noqa: E402


def expanded(state):
    """A state dict of the same names and shapes whose file takes a few kilobytes."""
    return {
        name: value
        if "relative_" in name and value.device.type == "cpu"
        else torch.ones(1, dtype=value.dtype).as_strided(value.shape, (0,) * value.ndim)
        for name, value in state.items()
    }


def state_of(case: Case):
    """The state dict of a case's original model, expanded; its constants are real."""
    if "swin" in case.architecture:
        module = original(*layout(case)).module
    else:
        with torch.device("meta"):
            module = original(*layout(case)).module
    return expanded(module.state_dict())


def layout(case: Case):
    return case.grammar, case.wrapper, case.architecture, case.channels


def save(folder, content, name="source.pth"):
    torch.save(content, folder / name)
    return folder / name


def resnet50(channels):
    return state_of(Case("", "timm-resnet", "plain", "resnet50", channels))


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.like}-{c.grammar}-{c.wrapper}")
def test_every_layout_is_recognised_and_leaves_nothing_over(case, tmp_path):
    state = state_of(case)
    content = wrapped(state, case.wrapper)
    conversion = plan(save(tmp_path, content), like=case.like)
    manifest = conversion.manifest
    assert set(manifest) == set(MANIFEST_FIELDS)
    assert manifest["architecture"] == case.architecture
    grammar, _, wrapper = manifest["layout"].partition(" in ")
    assert grammar == case.grammar.replace("torchvision-resnet", "timm-resnet")
    assert (wrapper or "plain") == case.wrapper
    assert manifest["family"] == CATALOGUE[case.like].family
    assert manifest["in_channels"] == case.channels
    # timm's Swin-v2 has two biases where we have one.
    joined = sum(name.endswith("q_bias") for name in state)
    tables = sum("relative_" in name or name.endswith("num_batches_tracked") for name in state)
    assert len(conversion.tensors) == len(state) - joined - tables
    assert set(manifest["filled"]) == set()


@pytest.mark.parametrize(
    ("case", "like"),
    [
        (Case("", "timm-resnet", "plain", "resnet50", 13), "ssl4eo-resnet50-moco"),
        (Case("", "timm-vit", "plain", "vit-s16", 13), "ssl4eo-vit-s16-moco"),
        (Case("", "torchvision-swin", "plain", "swin-v2-b", 9), "satlas-swin-v2-b-si-ms"),
        (Case("", "torchvision-resnet", "satlas", "resnet50", 3), "satlas-resnet50-si-rgb"),
        (Case("", "timm-resnet", "moco", "resnet18", 3), "ssl4eo-resnet18-moco-rgb"),
        (Case("", "timm-resnet", "plain", "resnet18", 11), "ssl4eo-l-resnet18-oli-tirs-toa-moco"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_file_is_like_follows_from_it_where_it_can(case, like, tmp_path):
    manifest = plan(save(tmp_path, wrapped(state_of(case), case.wrapper))).manifest
    assert manifest["like"] == like
    assert manifest["published"] is False
    bands = CATALOGUE[like].band_input
    assert manifest["bands"] == list(bands.bands)
    assert manifest["divisor"] == list(bands.divisor)
    assert manifest["clip"] is bands.clip


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("resnet50_sentinel2_rgb_moco-2b57ba8b.pth", "ssl4eo-resnet50-moco-rgb"),
        ("my-copy-0676ba61.pth", "imagenet-resnet50-v1"),
        ("sentinel2_resnet50_si_rgb.pth", "satlas-resnet50-si-rgb"),
    ],
)
def test_three_channels_are_known_by_the_name_of_the_file(name, like, tmp_path):
    manifest = plan(save(tmp_path, resnet50(3), name)).manifest
    assert (manifest["like"], manifest["published"]) == (like, True)


def test_three_channels_without_evidence_ask_what_they_are_like(tmp_path):
    source = save(tmp_path, resnet50(3))
    with pytest.raises(InputError, match=r"imagenet or satlas or ssl4eo.*--like ssl4eo-resnet50-"):
        plan(source)
    manifest = plan(source, like="satlas-resnet50-si-rgb").manifest
    assert manifest["bands"] == ["B04", "B03", "B02"]
    assert manifest["divisor"] == [3558] * 3


def test_seven_landsat_channels_ask_for_the_sensor(tmp_path):
    source = save(tmp_path, resnet50(7))
    with pytest.raises(InputError, match=r"--like ssl4eo-l-resnet50-oli.* or --like .*tm-toa"):
        plan(source)
    manifest = plan(source, like="ssl4eo-l-resnet50-tm-toa-simclr").manifest
    assert manifest["bands"][0] == "TM.B1"


@pytest.mark.parametrize(
    ("like", "reason"),
    [
        ("imagenet-resnet50-v1", "resnet50 of 9 channels, unlike imagenet-resnet50-v1"),
        ("satlas-resnet152-si-ms", r"unlike satlas-resnet152-si-ms \(resnet152, 9 channels\)"),
        ("mars", "no published weights are called mars"),
    ],
)
def test_what_it_is_said_to_be_like_must_fit(like, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        plan(save(tmp_path, resnet50(9)), like=like)


def test_both_grammars_of_the_feature_pyramid(tmp_path):
    case = Case("satlas-swin-v2-t-si-ms", "torchvision-swin", "satlas", "swin-v2-t", 9)
    new = wrapped(state_of(case), "satlas")
    old = {
        name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        if "_blocks." in name
        else name: tensor
        for name, tensor in new.items()
    }
    assert set(old) != set(new)
    first, second = (plan(save(tmp_path, content)).tensors for content in (new, old))
    assert set(first) == set(second)


@pytest.mark.parametrize("nested", ["backbone.backbone.", "backbone.backbone.backbone."])
def test_multi_image_swins_have_one_level_more(nested, tmp_path):
    case = Case("satlas-swin-v2-t-mi-ms", "torchvision-swin", "satlas", "swin-v2-t", 9)
    content = {
        name.replace("backbone.backbone.", nested): tensor
        for name, tensor in wrapped(state_of(case), "satlas").items()
    }
    assert plan(save(tmp_path, content)).manifest["decoder"] == "fpn"


def test_a_vit_without_final_norm_gets_a_fresh_one(tmp_path):
    state = state_of(Case("", "timm-vit", "plain", "vit-s16", 13))
    state = {name: tensor for name, tensor in state.items() if not name.startswith("norm.")}
    conversion = plan(save(tmp_path, state))
    assert set(conversion.manifest["filled"]) == {"backbone.norm.scale", "backbone.norm.bias"}
    np.testing.assert_array_equal(conversion.float32("backbone.norm.scale"), np.ones(384))


def test_torchvisions_older_names_of_a_vit(tmp_path):
    state = state_of(Case("", "torchvision-vit", "plain", "vit-b16", 3))
    old = {
        name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): tensor
        for name, tensor in state.items()
    }
    assert (
        plan(save(tmp_path, old), like="imagenet-vit-b16-v1").manifest["architecture"] == "vit-b16"
    )


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (
            lambda m: m.resnet34(),
            r"a ResNet of \(3, 4, 6, 3\) basic blocks: choose one of resnet18",
        ),
        (lambda m: m.resnet101(), r"a ResNet of \(3, 4, 23, 3\) bottleneck blocks"),
        (lambda m: m.wide_resnet50_2(), r"another shape for backbone\.layer1\.0\.bn1\.bias"),
        (lambda m: m.vit_b_32(), "a ViT of patch 32, width 768 and depth 12"),
        (lambda m: m.swin_v2_s(), r"a Swin-v2 of width 96 and depths \(2, 2, 18, 2\)"),
        (lambda m: m.swin_t(), "none of the known layouts"),
        (lambda m: m.vgg11(), "none of the known layouts"),
    ],
)
def test_other_architectures_are_refused_by_what_they_are(build, reason, tmp_path):
    import oracles

    models = oracles.torchvision().models
    with torch.device("meta"):
        state = build(models).state_dict()
    constants = models.swin_v2_t().features[1][0].attn.state_dict()
    state = {
        name: next(
            (v for k, v in constants.items() if "relative_" in k and name.endswith(k)), value
        )
        for name, value in state.items()
    }
    with pytest.raises(InputError, match=reason):
        plan(save(tmp_path, expanded(state)), like="imagenet-resnet50-v1")


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda s: s.pop("layer3.5.bn2.running_var"), r"lacks backbone\.layer3\.5\.bn2\.var"),
        (lambda s: s.pop("conv1.weight"), r"none of the known layouts"),
        (lambda s: s.update({"extra.weight": torch.ones(1)}), r"does not know: extra\.weight"),
        (lambda s: s.update({"layer3.5.bn4.weight": torch.ones(1)}), r"know: layer3\.5\.bn4"),
        (
            lambda s: s.update({"layer1.0.conv2.weight": torch.ones(64, 64, 1, 1)}),
            r"layer1\.0\.conv2\.kernel \(1, 1, 64, 64\) for \(3, 3, 64, 64\)",
        ),
        (lambda s: s.update({"bn1.bias": torch.ones(64, 1)}), r"shape for backbone\.bn1\.bias"),
        (
            lambda s: s.update({"layer1.0.conv2.weight": torch.ones(64)}),
            r"another shape for backbone\.layer1\.0\.conv2\.kernel",
        ),
        (lambda s: s.update({"conv1.weight": torch.ones(64)}), "no 2-D convolution"),
        (lambda s: s.update({"conv1.weight": torch.ones(64, 8, 7, 7)}), "takes 8 channels"),
        (lambda s: s.update({"module.bn1.bias": torch.ones(64)}), "holds both bn1.bias and module"),
    ],
)
def test_unfitting_files_are_refused(edit, reason, tmp_path):
    state = resnet50(13)
    edit(state)
    with pytest.raises(InputError, match=rf"source\.pth.*{reason}"):
        plan(save(tmp_path, state))


def test_constants_of_another_window_are_refused(tmp_path):
    state = state_of(Case("", "torchvision-swin", "plain", "swin-v2-t", 9))
    table = "features.1.0.attn.relative_coords_table"
    state[table] = state[table] * 2
    with pytest.raises(InputError, match=rf"{table} is not that of a window of 8 x 8"):
        plan(save(tmp_path, state))


def test_two_names_for_one_tensor_are_refused(tmp_path):
    state = {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}
    with pytest.raises(InputError, match=r"two tensors that come to the name a\.b"):
        plan(save(tmp_path, state))
