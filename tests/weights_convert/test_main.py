import subprocess
import sys

import numpy as np
import pytest

from jaxcrop.weights import CATALOGUE
from jaxcrop.weights.converted import (
    flatten,
    load_converted,
    save_converted,
    state_variables,
    unflatten,
)
from weights_convert.__main__ import main

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A ResNet-50 file in torchgeo's layout, made from our own shapes, with random batch norms."""
    from flax import nnx

    from jaxcrop.models.resnet import resnet50

    chance = np.random.default_rng(0)
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    state = {}
    model = nnx.eval_shape(lambda: resnet50(13, rngs=nnx.Rngs(0)))
    for path, variable in state_variables(model).items():
        module, _, name = path.rpartition(".")
        module = module.replace("downsample.conv", "downsample.0")
        module = module.replace("downsample.bn", "downsample.1")
        if name == "kernel":
            shape = [variable.shape[axis] for axis in (3, 2, 0, 1)]
            state[f"{module}.weight"] = torch.full((1,), chance.random()).expand(*shape)
        else:
            value = chance.random(variable.shape, dtype=np.float32)
            state[f"{module}.{names[name]}"] = torch.from_numpy(value)
    file = tmp_path_factory.mktemp("source") / "ssl4eo.pth"
    torch.save(state, file)
    return file


@pytest.fixture(scope="module")
def converted(source):
    main(["convert", str(source), str(source.parent / "out")])
    return source.parent / "out"


def exit_code(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def test_a_conversion_verifies(source, converted, capsys):
    main(["verify", str(source), str(converted)])
    *rows, total = capsys.readouterr().out.splitlines()
    assert len(rows) == 265
    assert all(row.startswith("0 ") for row in rows)
    assert total.split(maxsplit=1) == ["0", "total: 0 of 265 parameters differ"]


def test_verify_reports_every_kind_of_difference(source, converted, tmp_path, capsys):
    manifest, params = load_converted(converted)
    flat = flatten(params)
    flat["bn1.mean"] = flat["bn1.mean"] + np.float32(0.5)
    flat["bn1.var"] = np.full_like(flat["bn1.var"], np.nan)
    flat["layer1.0.bn1.bias"] = flat["layer1.0.bn1.bias"][:-1]
    flat["layer1.0.bn4.bias"] = flat.pop("layer1.0.bn2.bias")
    save_converted(tmp_path / "out", manifest, unflatten(flat))
    assert exit_code("verify", source, tmp_path / "out") == 1
    out = capsys.readouterr().out.splitlines()
    differing = {line.split()[1]: line for line in out[:-1] if not line.startswith("0 ")}
    assert differing["bn1.mean"].split() == ["0.5", "bn1.mean"]
    assert differing["bn1.var"].split()[0] == "inf"
    assert "shape (63,) instead of (64,)" in differing["layer1.0.bn1.bias"]
    assert "missing" in differing["layer1.0.bn2.bias"]
    assert "not in the source" in differing["layer1.0.bn4.bias"]
    assert "total: 5 of 266 parameters differ" in out[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("convert", "absent.pth", "out"), "cannot read absent.pth: No such file or directory"),
        (("verify", "absent.pth", "absent"), "absent holds no converted weights"),
        (("fetch", "ssl4eo"), "no published weights are called ssl4eo: choose ssl4eo-resnet50-"),
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
    manifest, params = load_converted(converted)
    for name, break_it in {
        "manifest": lambda out: (out / "manifest.json").write_text("{"),
        "version": lambda out: (out / "manifest.json").write_text("{}"),
        "params": lambda out: (out / "params").rename(out / "gone"),
    }.items():
        out = tmp_path / name
        save_converted(out, manifest, {"bn1": params["bn1"]})
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


def test_list_names_every_published_set(capsys):
    main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
