import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from checkpoints import randomise  # noqa: E402

from jaxcrop.errors import InputError  # noqa: E402
from jaxcrop.weights import load_converted  # noqa: E402
from weights_convert.convert import convert  # noqa: E402
from weights_convert.originals import original  # noqa: E402


@pytest.fixture(scope="module")
def module():
    return randomise(original("timm-resnet", "plain", "resnet18", 13).module, seed=0)


def save(folder, content, name="source.pth"):
    torch.save(content, folder / name)
    return folder / name


def test_what_is_written_is_what_the_file_holds(module, tmp_path):
    manifest = convert(save(tmp_path, module.state_dict()), tmp_path / "deep" / "out")
    assert manifest == json.loads((tmp_path / "deep" / "out" / "manifest.json").read_text())
    _, tensors = load_converted(tmp_path / "deep" / "out")
    theirs = module.state_dict()
    np.testing.assert_array_equal(
        tensors["backbone.layer2.0.conv1.kernel"],
        theirs["layer2.0.conv1.weight"].permute(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(tensors["backbone.bn1.var"], theirs["bn1.running_var"])
    assert "counter" in manifest["dropped"]["layer1.0.bn1.num_batches_tracked"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_become_float32(dtype, module, tmp_path):
    state = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in module.state_dict().items()
    }
    convert(save(tmp_path, state), tmp_path / "out")
    _, tensors = load_converted(tmp_path / "out")
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(tensors["backbone.bn1.scale"], state["bn1.weight"].float())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.full((64,), torch.nan), r"backbone\.bn1\.bias.*not finite"),
        (torch.full((64,), 1e300, dtype=torch.float64), r"bn1\.bias.*not finite in float32"),
        (torch.ones(64, dtype=torch.int64), r"stores backbone\.bn1\.bias as int64"),
    ],
)
def test_values_that_are_no_weights_are_refused_and_leave_nothing(value, reason, module, tmp_path):
    source = save(tmp_path, module.state_dict() | {"bn1.bias": value})
    with pytest.raises(InputError, match=rf"source\.pth.*{reason}"):
        convert(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source.pth"]


def test_an_existing_destination_is_refused(module, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists already"):
        convert(save(tmp_path, module.state_dict()), tmp_path / "out")


def test_a_folder_that_cannot_be_made_is_refused(module, tmp_path):
    source = save(tmp_path, module.state_dict())
    with pytest.raises(InputError, match="cannot write"):
        convert(source, source / "out")
