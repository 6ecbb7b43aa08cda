"""Groups of the parameters that each kind of backbone has."""

import pytest

from jaxcrop.config import TuningConfig
from jaxcrop.errors import InputError
from jaxcrop.models.segmenter import abstract_segmenter
from jaxcrop.training.groups import describe, parameter_groups
from jaxcrop.training.network import values_of


def _sizes(architecture):
    values = values_of(abstract_segmenter(architecture, "linear", 9, 6))
    return {n: v.size for n, v in values.items() if not n.endswith((".mean", ".var"))}


def _groups(architecture, **settings):
    sizes = _sizes(architecture)
    groups = parameter_groups(sizes, TuningConfig(**settings))
    names = [name for group in groups for name in group.parameters]
    assert sorted(names) == sorted(sizes)  # each parameter in exactly one group
    return {group.name: (group.rate, group.parameters) for group in groups}


@pytest.mark.parametrize("architecture", ["resnet18", "vit-s16", "swin-v2-t"])
def test_every_parameter_is_in_one_group(architecture):
    frozen = _groups(architecture)
    assert {name: rate for name, (rate, _) in frozen.items()} == {"backbone": 0, "decoder": 1}
    assert all(name.startswith("decoder.") for name in frozen["decoder"][1])
    full = _groups(architecture, tune="full")
    assert {name: rate for name, (rate, _) in full.items()} == {"backbone": 1, "decoder": 1}
    assert {n: r for n, (r, _) in _groups(architecture, tune="lora").items()}["backbone"] == 0


@pytest.mark.parametrize(
    ("architecture", "first", "last"),
    [
        ("resnet18", "backbone.layer1.0.conv1.kernel", "backbone.layer4.1.bn2.scale"),
        ("vit-s16", "backbone.blocks.0.attn.qkv.kernel", "backbone.norm.scale"),
        ("swin-v2-t", "backbone.stages.0.0.norm1.scale", "backbone.stages.3.1.mlp.fc2.bias"),
    ],
)
def test_rates_fall_towards_the_stem(architecture, first, last):
    groups = _groups(architecture, tune="discriminative", stage_decay=0.5)
    rates = {name: rate for name, (rate, _) in groups.items()}
    assert rates == {
        "stem": 0.0625,
        "stage 1": 0.125,
        "stage 2": 0.25,
        "stage 3": 0.5,
        "stage 4": 1.0,
        "decoder": 1.0,
    }
    assert first in groups["stage 1"][1]
    assert last in groups["stage 4"][1]


def test_a_vits_stages_are_quarters_of_its_blocks():
    groups = _groups("vit-s16", tune="discriminative")
    blocks = {name.split(".")[2] for name in groups["stage 2"][1]}
    assert blocks == {"3", "4", "5"}
    assert {name.split(".")[1] for name in groups["stem"][1]} == {
        "patch_embed",
        "cls_token",
        "pos_embed",
    }


@pytest.mark.parametrize("architecture", ["resnet18", "vit-s16", "swin-v2-t"])
def test_bitfit_trains_biases_alone(architecture):
    rate, parameters = _groups(architecture, tune="bitfit")["backbone's biases"]
    assert rate == 1
    assert all(name.endswith("bias") for name in parameters)
    assert not any(
        name.endswith("bias")
        for name in _groups(architecture, tune="bitfit")["backbone's others"][1]
    )


def test_groups_of_ones_own_come_first():
    rates = (r"backbone\.layer4\..*=0.1", r".*\.bias=0")
    groups = _groups("resnet18", tune="full", rates=rates)
    assert groups[r"backbone\.layer4\..*"][0] == 0.1
    assert groups[r".*\.bias"][0] == 0
    assert not any("layer4" in name for name in groups[r".*\.bias"][1])
    for wrong in ("backbone", "a(=1", r"backbone\.layer9\..*=1", ".*=-1", "=1"):
        with pytest.raises(InputError, match="--rates"):
            _groups("resnet18", rates=(wrong,))


def test_each_group_is_described_by_its_size():
    sizes = _sizes("resnet18")
    lines = describe(parameter_groups(sizes, TuningConfig()), sizes).splitlines()
    # weights_spec 6: 11,176,512 parameters with three channels, 64 x 49 for each of six more
    assert lines[0].split() == ["backbone", f"{11_176_512 + 6 * 64 * 49:,}", "parameters", "frozen"]
    assert "rate x 1" in lines[1]
