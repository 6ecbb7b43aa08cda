import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from checkpoints import randomise  # noqa: E402

from jaxcrop.weights import CATALOGUE, load_converted  # noqa: E402
from jaxcrop.weights.converted import save_converted  # noqa: E402
from jaxcrop.weights.safetensors import Spec  # noqa: E402
from weights_convert.__main__ import main  # noqa: E402
from weights_convert.originals import original  # noqa: E402


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A ResNet-18 file in torchgeo's layout."""
    module = randomise(original("timm-resnet", "plain", "resnet18", 13).module, seed=0)
    file = tmp_path_factory.mktemp("source") / "ssl4eo.pth"
    torch.save(module.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def converted(source):
    main(["convert", str(source), str(source.parent / "out")])
    return source.parent / "out"


def save(path, manifest, tensors):
    specs = {name: Spec(array.dtype, array.shape) for name, array in tensors.items()}
    save_converted(path, manifest, specs, tensors.values())


def exit_code(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def test_a_conversion_verifies(source, converted, capsys):
    main(["verify", str(source), str(converted)])
    *rows, total = capsys.readouterr().out.splitlines()
    assert len(rows) == 100
    assert all(row.startswith("0 ") for row in rows)
    assert total.split(maxsplit=1) == ["0", "total: 0 of 100 parameters differ"]


def test_verify_reports_every_kind_of_difference(source, converted, tmp_path, capsys):
    manifest, tensors = load_converted(converted)
    tensors["backbone.bn1.mean"] = tensors["backbone.bn1.mean"] + np.float32(0.5)
    tensors["backbone.bn1.var"] = np.full_like(tensors["backbone.bn1.var"], np.nan)
    tensors["backbone.layer1.0.bn1.bias"] = tensors["backbone.layer1.0.bn1.bias"][:-1]
    tensors["backbone.layer1.0.bn4.bias"] = tensors.pop("backbone.layer1.0.bn2.bias")
    save(tmp_path / "out", manifest, tensors)
    assert exit_code("verify", source, tmp_path / "out") == 1
    out = capsys.readouterr().out.splitlines()
    differing = {line.split()[1]: line for line in out[:-1] if not line.startswith("0 ")}
    assert differing["backbone.bn1.mean"].split() == ["0.5", "backbone.bn1.mean"]
    assert differing["backbone.bn1.var"].split()[0] == "inf"
    assert "shape (63,) instead of (64,)" in differing["backbone.layer1.0.bn1.bias"]
    assert "missing" in differing["backbone.layer1.0.bn2.bias"]
    assert "not in the source" in differing["backbone.layer1.0.bn4.bias"]
    assert "total: 5 of 101 parameters differ" in out[-1]


def test_verify_against_torch_prints_every_map(source, capsys):
    main(["verify", str(source), "--against", "torch", "--size", "64"])
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["shape", "size", "difference", "relative", "allowed"]
    assert [row[:15].rstrip() for row in rows] == [
        *(f"map {number}" for number in range(1, 6)),
        "input gradient",
    ]
    assert "(1, 2, 2, 512)" in rows[4]


def test_verify_against_torch_fails_where_the_models_differ(source, capsys, monkeypatch):
    from jaxcrop.models.layers import BatchNorm

    initialise = BatchNorm.__init__

    def other_epsilon(self, *args, **kwargs):
        initialise(self, *args, **kwargs)
        self.epsilon = 1e-3

    monkeypatch.setattr(BatchNorm, "__init__", other_epsilon)
    assert exit_code("verify", source, "--against", "torch", "--size", "32") == 1
    assert "differs" in capsys.readouterr().out


def test_fetched_weights_are_verified_by_name(source, tmp_path, monkeypatch, capsys):
    """As they lie in the cache after `fetch`."""
    monkeypatch.setenv("JAXCROP_CACHE", str(tmp_path))
    entry = CATALOGUE["ssl4eo-resnet18-moco"]
    file = tmp_path / "downloads" / entry.name / entry.file_name
    file.parent.mkdir(parents=True)
    assert exit_code("verify", entry.name) == 2
    assert f"fetch {entry.name}" in capsys.readouterr().err
    shutil.copy(source, file)
    main(["convert", str(file), str(tmp_path / "weights" / entry.name)])
    assert f"is {entry.name}: bands B01 B02" in capsys.readouterr().out
    main(["verify", entry.name])
    assert "total: 0 of 100 parameters differ" in capsys.readouterr().out


def test_export_says_what_it_made_up_and_left_out(converted, tmp_path, capsys):
    out = tmp_path / "x.safetensors"
    main(["export", str(converted), str(out), "--layout", "torchvision"])
    printed = capsys.readouterr().out
    assert "122 tensors in the names of torchvision" in printed
    assert "made up: fc.bias, fc.weight" in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("convert", "absent.pth", "out"), "cannot read absent.pth: No such file or directory"),
        (("verify", "absent.pth", "absent"), "absent holds no converted weights"),
        (("fetch", "ssl4eo"), "no published weights are called ssl4eo: `python"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, sentence, capsys):
    assert exit_code(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("error: ")
    assert sentence in captured.err


def test_unreadable_conversions_are_bad_input(source, converted, tmp_path, capsys):
    for name, break_it in {
        "manifest": lambda out: (out / "manifest.json").write_text("{"),
        "version": lambda out: (out / "manifest.json").write_text("{}"),
        "weights": lambda out: (out / "weights.safetensors").unlink(),
    }.items():
        out = tmp_path / name
        shutil.copytree(converted, out)
        break_it(out)
        assert exit_code("verify", source, out) == 2
        assert "convert the weights again" in capsys.readouterr().err


def test_the_command_line_works_as_a_program(tmp_path):
    command = [sys.executable, "-m", "weights_convert", "convert", tmp_path / "x", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read")
    assert not (tmp_path / "out").exists()


def test_help_imports_no_jax():
    program = (
        "import sys\nfrom weights_convert.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print({'jax', 'flax', 'orbax'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_list_can_be_narrowed(capsys):
    main(["list", "--family", "satlas", "--architecture", "swin-v2-b", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {entry["architecture"] for entry in found} == {"swin-v2-b"}
    assert len(found) == 8
    main(["list"])
    listed = capsys.readouterr().out
    assert all(f"{name} " in listed for name in CATALOGUE)
