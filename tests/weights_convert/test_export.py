"""There and back: the original library's file, our conversion, and a file it loads strictly."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from checkpoints import randomise, wrapped  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from jaxcrop.errors import InputError  # noqa: E402
from jaxcrop.weights import load_converted  # noqa: E402
from weights_convert.convert import convert  # noqa: E402
from weights_convert.export import export  # noqa: E402
from weights_convert.originals import original  # noqa: E402

# library, grammar and wrapper of the file, architecture, channels, and what the file is like
ROUND_TRIPS = [
    ("timm", "timm-resnet", "plain", "resnet18", 13, "ssl4eo-resnet18-moco"),
    ("torchgeo", "timm-resnet", "plain", "resnet50", 9, "satlas-resnet50-si-ms-torchgeo"),
    ("torchvision", "torchvision-resnet", "plain", "resnet18", 3, "imagenet-resnet18-v1"),
    ("timm", "timm-vit", "plain", "vit-s16", 13, "ssl4eo-vit-s16-dino"),
    ("torchgeo", "timm-vit", "plain", "vit-s14", 13, "ssl4eo-vit-s14-softcon"),
    ("torchvision", "torchvision-vit", "plain", "vit-b16", 3, "imagenet-vit-b16-v1"),
    ("torchvision", "torchvision-swin", "plain", "swin-v2-t", 3, "imagenet-swin-v2-t-v1"),
    ("torchgeo", "torchvision-swin", "plain", "swin-v2-t", 9, "satlas-swin-v2-t-mi-ms-torchgeo"),
    ("timm", "timm-swin", "plain", "swin-v2-t", 3, "imagenet-swin-v2-t-microsoft"),
    ("satlas", "torchvision-resnet", "satlas", "resnet50", 9, "satlas-resnet50-si-ms"),
    ("satlas", "torchvision-swin", "satlas", "swin-v2-t", 3, "satlas-swin-v2-t-mi-rgb"),
    ("smp", "timm-resnet", "smp", "resnet18", 13, "ssl4eo-resnet18-moco"),
]


@pytest.mark.parametrize("trip", ROUND_TRIPS, ids=lambda trip: f"{trip[0]}-{trip[1]}-{trip[3]}")
def test_a_file_comes_back_bit_by_bit(trip, tmp_path):
    layout, grammar, wrapper, architecture, channels, like = trip
    theirs = randomise(original(grammar, wrapper, architecture, channels).module, seed=0)
    before = wrapped(theirs.state_dict(), wrapper)
    torch.save(before, tmp_path / "before.pth")
    convert(tmp_path / "before.pth", tmp_path / "out", like=like)
    written = export(tmp_path / "out", tmp_path / "after.safetensors", layout)
    after = load_file(tmp_path / "after.safetensors")
    assert written.invented == []
    assert written.tensors == len(after)
    expected = {name: value for name, value in before.items() if not name.startswith("heads.0")}
    assert set(after) == set(expected)
    for name, tensor in expected.items():
        assert after[name].dtype == tensor.dtype, name
        assert torch.equal(after[name], tensor), name
    if wrapper != "satlas":
        theirs.load_state_dict(after, strict=True)


@pytest.mark.parametrize("multi_image", [False, True])
@pytest.mark.parametrize("architecture", ["resnet50", "swin-v2-t"])
def test_satlaspretrain_models_loads_what_we_export(architecture, multi_image, tmp_path):
    """Through the package's own loader, which is strict about the backbone and the FPN."""
    theirs = original("", "satlas", architecture, 9).module
    torch.save(wrapped(randomise(theirs, 0).state_dict(), "satlas"), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out", like=f"satlas-{architecture}-si-ms")
    export(tmp_path / "out", tmp_path / "out.safetensors", "satlas")
    import satlaspretrain_models

    backbone = satlaspretrain_models.utils.Backbone[
        {"resnet50": "RESNET50", "swin-v2-t": "SWINT"}[architecture]
    ]
    loaded = satlaspretrain_models.Model(
        9, multi_image, backbone, fpn=True, weights=load_file(tmp_path / "out.safetensors")
    )
    image = torch.rand(1, 9, 64, 64)
    with torch.no_grad():
        want = theirs.fpn(theirs.backbone(image))
        got = loaded.eval().fpn(loaded.backbone(image))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * b.abs().max())


@pytest.mark.parametrize(
    ("layout", "grammar", "architecture", "like"),
    [
        ("torchvision", "timm-resnet", "resnet18", "ssl4eo-resnet18-moco"),
        ("torchgeo", "timm-swin", "swin-v2-t", "imagenet-swin-v2-t-microsoft"),
        ("timm", "torchvision-swin", "swin-v2-t", "satlas-swin-v2-t-si-ms-torchgeo"),
        ("timm", "torchvision-vit", "vit-b16", "imagenet-vit-b16-v1"),
    ],
)
def test_one_library_to_another(layout, grammar, architecture, like, tmp_path):
    """The other library's own model, loaded strictly, gives the same maps."""
    channels = {"ssl4eo": 13, "satlas": 9, "imagenet": 3}[like.split("-")[0]]
    kind = grammar.split("-")[1]
    first = original(grammar, "plain", architecture, channels, size=256)
    torch.save(randomise(first.module, 0).state_dict(), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out", like=like)
    written = export(tmp_path / "out", tmp_path / "out.safetensors", layout)
    library = {"torchgeo": "torchvision"}.get(layout, layout)
    second = original(f"{library}-{kind}", "plain", architecture, channels, size=256)
    state = load_file(tmp_path / "out.safetensors")
    if library == "timm":  # whose models of no classes stand for those that extract maps
        state = {name: value for name, value in state.items() if not name.startswith("head.")}
    second.module.load_state_dict(state, strict=True)
    second.module.eval()
    assert all(name.startswith(("fc.", "head.")) for name in written.invented)
    size = 224 if kind == "vit" else 256
    image = torch.rand(1, channels, size, size)
    with torch.no_grad():
        for a, b in zip(first.stages(image), second.stages(image), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * b.abs().max())


def test_what_a_layout_cannot_hold_is_refused(tmp_path):
    module = randomise(original("timm-vit", "plain", "vit-s14", 13).module, 0)
    torch.save(module.state_dict(), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out")
    for layout, reason in {
        "satlas": "satlas has no vit-s14: choose --layout torchgeo or timm or torchvision",
        "torchvision": r"no place for backbone\.blocks\.0\.ls1\.gamma",
    }.items():
        with pytest.raises(InputError, match=reason):
            export(tmp_path / "out", tmp_path / "x.safetensors", layout)
    with pytest.raises(InputError, match="holds no converted weights"):
        export(tmp_path, tmp_path / "x.safetensors", "timm")
    with pytest.raises(InputError, match="cannot write"):
        export(tmp_path / "out", tmp_path / "in.pth" / "x.safetensors", "timm")
    assert {path.name for path in tmp_path.iterdir()} == {"in.pth", "out"}


def test_a_backbone_is_no_unet(tmp_path):
    module = randomise(original("timm-resnet", "plain", "resnet18", 13).module, 0)
    torch.save(module.state_dict(), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out")
    with pytest.raises(InputError, match="has no U-Net"):
        export(tmp_path / "out", tmp_path / "x.safetensors", "smp")
    assert load_converted(tmp_path / "out")[0]["decoder"] is None
