"""A user's path through the command lines: convert, train, evaluate, predict."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import yaml
from flax import nnx
from oracles import randomise, timm

from jaxcrop import evaluate, predict, train
from jaxcrop.data.synthetic import write_scene
from weights_convert.__main__ import main as weights_convert

CLASSES = ["ignore", "maize", "soybean", "rice", "wheat", "other"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A SatlasPretrain-shaped checkpoint with random values, converted by our command."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("weights")
    backbone = randomise(timm().create_model("resnet50", in_chans=9, num_classes=0), seed=0)
    torch.save(backbone.state_dict(), folder / "satlas.pth")
    like = ["--like", "satlas-resnet50-si-ms"]
    weights_convert(["convert", str(folder / "satlas.pth"), str(folder / "satlas"), *like])
    weights_convert(["verify", str(folder / "satlas.pth"), str(folder / "satlas")])
    return folder / "satlas"


@pytest.fixture(scope="module")
def arguments(synthetic_region, weights, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run") / "run"
    return [
        *("--backbone", "satlas", "--region", "africa", "--weights", str(weights)),
        *("--data-dir", str(synthetic_region), "--run-dir", str(run_dir)),
        *("--steps", "2", "--batch-size", "2", "--eval-every", "1"),
    ]


@pytest.fixture(scope="module")
def run(arguments):
    """The folder of a run that `python -m jaxcrop.train` trained."""
    train.main(arguments)
    return train.Path(arguments[arguments.index("--run-dir") + 1])


def test_a_run_explains_itself(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["config"]["steps"] == 2
    assert config["config"]["architecture"] == "resnet50"
    assert config["config"]["decoder"] == "unet"
    assert config["data"]["synthetic"] is True
    assert config["data"]["classes"] == [4, 5]
    assert config["model"]["bands"][:3] == ["B04", "B03", "B02"]
    assert config["model"]["backbone"]["source"] == "satlas.pth"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2]
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))


def test_the_trained_model_goes_back_to_pytorch(run, tmp_path):
    """Exported, loaded strictly by segmentation_models_pytorch, it gives the same logits."""
    torch = pytest.importorskip("torch")
    timm()
    smp = pytest.importorskip("segmentation_models_pytorch")
    from safetensors.torch import load_file

    from jaxcrop.training.runs import open_run

    weights_convert(["export", str(run), str(tmp_path / "unet.safetensors"), "--layout", "smp"])
    theirs = smp.Unet("resnet50", encoder_weights=None, in_channels=9, classes=len(CLASSES))
    theirs.load_state_dict(load_file(tmp_path / "unet.safetensors"), strict=True)
    image = np.random.default_rng(0).random((1, 64, 64, 9), dtype=np.float32)
    with torch.no_grad():
        want = theirs.eval()(torch.from_numpy(image).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    got = nnx.jit(open_run(run).model("best"))(image)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * want.abs().max())


def test_scores_equal_torchmetrics_and_scikit_learn(run, synthetic_records, capsys):
    """The figures printed and stored, recomputed from the per-chip matrices by other libraries."""
    torch = pytest.importorskip("torch")
    classification = pytest.importorskip("torchmetrics.functional.classification")
    from sklearn.neighbors import NearestCentroid

    evaluate.main([str(run), "--batch-size", "2"])
    assert "synthetic sact" in capsys.readouterr().out
    folder = run / "evaluation" / "test"
    stored = json.loads((folder / "metrics.json").read_text())
    assert stored["synthetic"] is True

    table = pq.read_table(folder / "per_chip.parquet").to_pydict()
    truth, prediction, pixels = (
        np.array(table[name]) for name in ("truth", "prediction", "pixels")
    )
    assert len(set(table["chip_id"])) == synthetic_records.sizes["test"]
    index = {name: number for number, name in enumerate(CLASSES)}
    truth, prediction = (np.vectorize(index.get)(names) for names in (truth, prediction))
    truth, prediction = (torch.from_numpy(v.repeat(pixels)) for v in (truth, prediction))
    for name in ("accuracy", "f1_score", "precision", "recall", "jaccard_index"):
        for ours, theirs in (("overall", "micro"), ("average", "macro")):
            want = getattr(classification, f"multiclass_{name}")(
                prediction, truth, num_classes=6, average=theirs, ignore_index=0
            )
            got = stored["model"][f"{ours}_{name.split('_')[0]}"]
            np.testing.assert_allclose(got, want.item(), rtol=1e-5)

    def pixels_of(split):
        chips = [record for record in synthetic_records.chips(split, satlas_bands())]
        image = np.concatenate([chip.image[chip.label > 0] for chip in chips]).astype(float)
        return image, np.concatenate([chip.label[chip.label > 0] for chip in chips])

    image, label = pixels_of("test")
    nearest = NearestCentroid().fit(*pixels_of("train")).predict(image)
    expected = stored["nearest mean per pixel"]["overall_accuracy"]
    np.testing.assert_allclose((nearest == label).mean(), expected, atol=1e-4)
    majority = np.bincount(pixels_of("train")[1]).argmax()
    expected = stored["majority class"]["overall_accuracy"]
    np.testing.assert_allclose((label == majority).mean(), expected)

    rows = (folder / "confusion.csv").read_text().splitlines()
    assert rows[0] == "truth\\prediction," + ",".join(CLASSES)
    total = sum(int(cell) for row in rows[1:] for cell in row.split(",")[1:])
    assert total == len(label)
    for picture in ("confusion.png", "reliability.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")


def satlas_bands():
    from jaxcrop.weights import band_input

    return band_input("satlas")


def test_a_scene_becomes_a_map(run, tmp_path, capsys):
    write_scene(tmp_path, "africa", 3, 300, 420)
    scene, crop_map, picture = (tmp_path / name for name in ("scene.tif", "map.tif", "map.png"))
    predict.main([str(run), str(scene), str(crop_map), "--picture", str(picture)])
    assert "synthetic sact" in capsys.readouterr().out
    with rasterio.open(scene) as given, rasterio.open(crop_map) as made:
        assert (made.crs, made.transform, made.shape) == (given.crs, given.transform, given.shape)
        assert set(np.unique(made.read(1))) <= {4, 5}
        assert made.colormap(1)[4][:3] == (137, 96, 83)
        assert "synthetic" in made.tags()["TIFFTAG_IMAGEDESCRIPTION"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def _fails(main, arguments, capsys) -> str:
    """The one sentence with which a command refuses its arguments, exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_missing_data_and_weights_are_named_with_their_remedies(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAXCROP_CACHE", str(tmp_path / "cache"))
    wanted = ["--backbone", "satlas", "--region", "africa", "--data-dir", tmp_path]
    message = _fails(train.main, wanted, capsys)
    assert f"the records of sact in {tmp_path}" in message
    assert "python -m jaxcrop.data build sact --source DIR" in message
    assert "the published weights satlas-resnet50-si-ms" in message
    assert "python -m weights_convert fetch satlas-resnet50-si-ms" in message
    assert "--demo" in message
    message = _fails(train.main, [*wanted, "--architecture", "swin-v2-t"], capsys)
    assert "python -m weights_convert fetch satlas-swin-v2-t-si-ms" in message
    message = _fails(train.main, [*wanted, "--architecture", "vit-s16"], capsys)
    assert "satlas has no weights of vit-s16: choose resnet50" in message
    named = ["--weights", "satlas-swin-v2-b-mi-ms"]
    message = _fails(train.main, [*wanted, *named, "--architecture", "swin-v2-b"], capsys)
    assert "python -m weights_convert fetch satlas-swin-v2-b-mi-ms" in message
    message = _fails(train.main, [*wanted, *named], capsys)
    assert "holds weights of swin-v2-b, not resnet50: give --architecture swin-v2-b" in message


@pytest.mark.usefixtures("run")
def test_published_weights_come_from_the_cache(arguments, tmp_path, capsys, monkeypatch):
    """The command gets past them, to the settings of the run that is there."""
    monkeypatch.setenv("JAXCROP_CACHE", str(tmp_path))
    weights = arguments[arguments.index("--weights") + 1]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "satlas-resnet50-si-ms").symlink_to(weights)
    for name in ("published", "satlas-resnet50-si-ms"):
        message = _fails(train.main, [*arguments, "--weights", name], capsys)
        assert f"holds a run with weights {weights}, not {name}" in message


def test_bad_input_is_refused_in_one_sentence(run, arguments, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    unwritable = [*arguments, "--run-dir", tmp_path / "file" / "run"]
    assert "cannot be written" in _fails(train.main, unwritable, capsys)
    absent = [*arguments, "--weights", tmp_path / "absent"]
    assert "holds no converted weights" in _fails(train.main, absent, capsys)
    assert "--steps must be at least 1" in _fails(train.main, [*arguments, "--steps", 0], capsys)
    imagenet = [*arguments, "--backbone", "imagenet"]
    assert "holds weights of satlas, not imagenet" in _fails(train.main, imagenet, capsys)
    other = [*arguments, "--architecture", "resnet18"]
    assert "holds weights of resnet50, not resnet18" in _fails(train.main, other, capsys)
    asia = [*arguments, "--region", "asia"]
    assert "the records of nccm in" in _fails(train.main, asia, capsys)
    odd = [*arguments, "--batch-size", 3, "--run-dir", tmp_path / "odd"]
    assert "does not divide over 2 devices" in _fails(train.main, odd, capsys)
    other = [*arguments, "--seed", 5]
    assert "holds a run with seed 0, not 5" in _fails(train.main, other, capsys)
    assert "is no run folder" in _fails(evaluate.main, [tmp_path], capsys)
    lost = [tmp_path, tmp_path / "scene.tif", tmp_path / "map.tif"]
    assert "is no run folder" in _fails(predict.main, lost, capsys)
    text = [run, tmp_path / "file", tmp_path / "map.tif"]
    assert "cannot be opened as a raster" in _fails(predict.main, text, capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "odd"]


def test_a_checkpoint_of_another_architecture_is_refused(run, tmp_path, capsys):
    copy = tmp_path / "run"
    copy.mkdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    (copy / "checkpoints").symlink_to(run / "checkpoints")
    settings = config["config"]
    for part, another, unknown in (
        ("architecture", "resnet18", "resnet1001"),
        ("decoder", "linear", "circular"),
    ):
        trained = settings[part]
        settings[part] = another
        (copy / "config.yaml").write_text(yaml.safe_dump(config))
        assert "another architecture" in _fails(evaluate.main, [copy], capsys)
        settings[part] = unknown
        (copy / "config.yaml").write_text(yaml.safe_dump(config))
        assert f"names the {part} {unknown}" in _fails(evaluate.main, [copy], capsys)
        settings[part] = trained
    (copy / "config.yaml").write_text("config: {")
    assert "is damaged" in _fails(evaluate.main, [copy], capsys)


@pytest.mark.parametrize(
    "module", ["jaxcrop.train", "jaxcrop.evaluate", "jaxcrop.predict", "jaxcrop.data", "jaxcrop"]
)
def test_help_imports_nothing_heavy(module):
    heavy = {"jax", "tensorflow_datasets", "rasterio", "matplotlib", "orbax"}
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        f"finally: print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    assert "usage" in result.stdout
    assert result.stderr.splitlines()[-1] == "[]"
