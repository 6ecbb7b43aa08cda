import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxcrop.data.__main__ import main
from jaxcrop.data.paths import default_data_dir
from jaxcrop.regions import REGIONS


def run(*arguments, cwd=None):
    command = [sys.executable, "-m", "jaxcrop.data", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_draw_then_build(tmp_path, monkeypatch, capsys):
    """The two commands of the README, with the default data folder taken from the environment."""
    monkeypatch.setenv("JAXCROP_DATA_DIR", str(tmp_path / "records"))
    main(["synthetic", "--region", "africa", "--out", str(tmp_path / "af"), "--chips", "3"])
    main(["build", "sact", "--source", str(tmp_path / "af")])
    printed = capsys.readouterr().out
    assert "3 synthetic chips of africa" in printed
    for split in ("train", "validation", "test"):
        assert f"{split}: 1 synthetic chips" in printed
    folder = tmp_path / "records" / "sact" / "standard" / "2.0.0"
    assert str(folder) in printed
    builder = tfds.builder_from_directory(folder)
    record = builder.as_data_source(split="test")[0]
    assert record["image"].shape == (1, 256, 256, 13)
    assert set(np.unique(record["label"])) <= {0, *REGIONS["africa"].classes}


def test_what_records_hold_is_written_drawn_and_divided(synthetic_region, tmp_path, capsys):
    where = ["sact", "--data-dir", str(synthetic_region), "--out"]
    main(["card", *where, str(tmp_path / "card")])
    assert (tmp_path / "card" / "card.md").read_text().startswith("# sact 2.0.0, standard")
    main(["show", *where, str(tmp_path / "chip.png"), "--split", "test"])
    assert (tmp_path / "chip.png").read_bytes().startswith(b"\x89PNG")
    main(["split", *where, str(tmp_path / "lists"), "--method", "random"])
    lists = [(tmp_path / "lists" / f"{s}.csv").read_text() for s in ("train", "validation", "test")]
    assert sum(len(ids.split()) for ids in lists) == 10
    assert "train 8, validation 1, test 1" in capsys.readouterr().out
    main(["card", *where, str(tmp_path / "listed"), "--splits", str(tmp_path / "lists")])
    assert "8 train, 1 validation, 1 test" in (tmp_path / "listed" / "card.md").read_text()
    with pytest.raises(SystemExit) as caught:
        main(["card", "cdl", "--data-dir", str(synthetic_region), "--out", str(tmp_path / "none")])
    assert caught.value.code == 2
    assert "holds no records of cdl, variant standard" in capsys.readouterr().err


def test_default_data_dir(monkeypatch):
    monkeypatch.delenv("JAXCROP_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(default_data_dir()) == "/home/someone/.cache/jaxcrop/data"


@pytest.mark.parametrize(
    "verb", [[], ["build"], ["card"], ["cut"], ["fetch"], ["show"], ["split"], ["synthetic"]]
)
def test_help_imports_nothing_heavy(verb):
    program = (
        "import sys\nfrom jaxcrop.data.__main__ import main\n"
        f"try:\n    main({[*verb, '--help']})\nexcept SystemExit as e:\n    assert not e.code\n"
        "print([m for m in ('jax', 'rasterio', 'tensorflow_datasets') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_bad_input_exits_with_2_and_a_sentence(tmp_path):
    (tmp_path / "af" / "chips").mkdir(parents=True)
    (tmp_path / "af" / "chips" / "x.tif").write_bytes(b"II*\0 and then nothing")
    (tmp_path / "af" / "labels").mkdir()
    done = run("build", "sact", "--source", tmp_path / "af", "--data-dir", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["build", "nccm2", "--source", "."], "no dataset is called nccm2: choose one of"),
        (["build", "sact", "--source", "nowhere"], "nowhere is no folder"),
        (["synthetic", "--region", "asia", "--out", "file/x"], "cannot write to file/x"),
        (["synthetic", "--region", "asia", "--out", "x", "--chips", "0"], "cannot draw 0 chips"),
        (["synthetic", "--region", "asia", "--out", "used"], "exists already"),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "used" / "chips").mkdir(parents=True)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert named in capsys.readouterr().err
    assert list((tmp_path / "used").iterdir()) == [tmp_path / "used" / "chips"]
