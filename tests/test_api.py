"""The Python API: chips, models with their weights, and trained models that predict."""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import rasterio
import tensorflow_datasets as tfds
from flax import nnx
from oracles import randomise, timm
from small_regions import build_small_region

import jaxcrop
from jaxcrop import predict
from jaxcrop.data.reading import find_records
from jaxcrop.data.synthetic import write_scene
from jaxcrop.weights.converted import state_variables
from weights_convert.__main__ import main as weights_convert

OFFSET = 1000
"""What the scene below carries, to be taken off."""


@pytest.fixture(scope="module")
def region(tmp_path_factory) -> Path:
    """The records of a region whose chips are as large as a window of `predict`."""
    folder = tmp_path_factory.mktemp("africa")
    build_small_region(folder / "source", folder / "records", "africa", chips=6, seed=7, side=256)
    return folder / "records"


@pytest.fixture(scope="module")
def run(region, tmp_path_factory) -> Path:
    """A run trained from Python, in the folder that its settings name."""
    config = jaxcrop.TrainConfig.of(
        backbone="imagenet",
        region="africa",
        architecture="resnet18",
        weights="random",
        tune="full",
        data_dir=str(region),
        steps=2,
        batch_size=2,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        folder = jaxcrop.train.train_and_evaluate(config)
        assert str(folder) == "runs/africa-imagenet-resnet18-unet"
        return folder.absolute()


@pytest.fixture(scope="module")
def trained(run):
    return jaxcrop.load_run(run)


@pytest.fixture(scope="module")
def unet(run, tmp_path_factory):
    """The trained model as segmentation_models_pytorch computes it: (h, w, 13) DN to logits."""
    torch = pytest.importorskip("torch")
    timm()
    smp = pytest.importorskip("segmentation_models_pytorch")
    from safetensors.torch import load_file

    exported = tmp_path_factory.mktemp("exported") / "unet.safetensors"
    weights_convert(["export", str(run), str(exported), "--layout", "smp"])
    theirs = smp.Unet("resnet18", encoder_weights=None, in_channels=13, classes=6).eval()
    theirs.load_state_dict(load_file(exported), strict=True)

    def logits(image):
        with torch.no_grad():
            scaled = torch.from_numpy(image.astype(np.float32) / 10_000).permute(2, 0, 1)
            return theirs(scaled[None])[0].permute(1, 2, 0).numpy()

    return logits


@pytest.fixture(scope="module")
def chips(region):
    return jaxcrop.data.load("africa", split="test", data_dir=region)


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, jaxcrop; jaxcrop.data, jaxcrop.models, jaxcrop.train, jaxcrop.TrainConfig\n"
        "assert {'load_run', 'data', 'models', '__version__'} <= set(dir(jaxcrop))\n"
        "assert {'load', 'normalise'} <= set(dir(jaxcrop.data))\n"
        "assert not hasattr(jaxcrop, 'load_walk')\n"
        "print({'jax', 'numpy', 'tensorflow_datasets', 'rasterio'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout == "set()\n"


def test_chips_are_those_that_tfds_reads(region):
    records = find_records(region, "sact")
    theirs = tfds.builder_from_directory(records.folder).as_data_source("train[:3]")
    ours = jaxcrop.data.load("africa", split="train[:3]", data_dir=region)
    assert len(ours) == len(theirs) == 3
    for chip, record in zip(ours, theirs, strict=True):
        assert chip.chip_id == record["chip_id"].decode()
        np.testing.assert_array_equal(chip.image, record["image"][0])
        np.testing.assert_array_equal(chip.label, record["label"])
    wanted = ("B8A", "B04")
    some = jaxcrop.data.load("sact", "train[1:3]", bands=wanted, data_dir=str(region))
    stored = [records.bands.index(band) for band in wanted]
    np.testing.assert_array_equal(some[0].image, theirs[1]["image"][0][..., stored])


def test_the_data_folder_is_the_environments(region, chips, monkeypatch):
    monkeypatch.setenv("JAXCROP_DATA_DIR", str(region))
    assert jaxcrop.data.load("sact", "test")[0].chip_id == chips[0].chip_id


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("afrika",), "no dataset is called afrika: choose one of .*sact.*, or of the regions af"),
        (("europe",), "holds no records of eurocrops, .*jaxcrop.data build eurocrops"),
        (("africa", "trian"), "has no chips in split trian"),
        (("africa", "train", "B13"), "lacks band B13"),
    ],
)
def test_chips_that_are_not_there_are_named(region, arguments, sentence):
    name, *split, bands = (*arguments, None) if len(arguments) < 3 else arguments
    bands = None if bands is None else [bands]
    with pytest.raises(jaxcrop.InputError, match=sentence):
        jaxcrop.data.load(name, *split, bands=bands, data_dir=region)


def test_prediction_is_that_of_pytorch(trained, unet, chips):
    """One window, so that nothing is blended; only wheat and other were in the training labels."""
    assert trained.classes == (4, 5)
    image = chips[0].image
    want = np.exp(unet(image)[..., [4, 5]].astype(np.float64))
    want /= want.sum(axis=-1, keepdims=True)
    got = trained.predict_proba(image)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[..., [4, 5]], want, atol=1e-4)
    assert not got[..., :4].any()
    classes = trained.predict(image)
    assert classes.dtype == np.uint8
    decided = np.abs(want[..., 0] - want[..., 1]) > 1e-3
    assert decided.mean() > 0.9
    np.testing.assert_array_equal(classes[decided], want.argmax(axis=-1)[decided] + 4)
    assert len(np.unique(classes)) == 2


def test_the_model_itself_maps_normalised_images(trained, unet, chips):
    image = chips[0].image[:96, :64]
    normalised = jaxcrop.data.normalise(jnp.asarray(image[None]), trained.band_input)
    want = unet(image)
    np.testing.assert_allclose(trained.model(normalised)[0], want, atol=1e-4 * np.abs(want).max())


def test_an_array_is_mapped_as_the_command_maps_its_file(trained, run, tmp_path):
    write_scene(tmp_path, "africa", 3, 300, 420)
    crop_map, confidence = tmp_path / "map.tif", tmp_path / "confidence.tif"
    options = ["--confidence", str(confidence), "--offset", str(OFFSET), "--overlap", "32"]
    predict.main([str(run), str(tmp_path / "scene.tif"), str(crop_map), *options])
    with rasterio.open(tmp_path / "scene.tif") as scene:
        image, bands = np.moveaxis(scene.read(), 0, -1), scene.descriptions
    assert bands != trained.band_input.bands  # they are named, not guessed
    how = {"bands": bands, "offset": OFFSET, "overlap": 32}
    with rasterio.open(crop_map) as written:
        np.testing.assert_array_equal(trained.predict(image, **how), written.read(1))
        assert trained.title in written.tags()["TIFFTAG_IMAGEDESCRIPTION"]
    values = trained.predict_proba(image, **how)
    np.testing.assert_allclose(values.sum(axis=-1), 1, atol=1e-5)
    with rasterio.open(confidence) as written:
        np.testing.assert_array_equal(np.rint(100 * values.max(axis=-1)), written.read(1))
    np.testing.assert_array_equal(values.argmax(axis=-1), trained.predict(image, **how))


def test_a_scene_is_mapped_from_python(trained, tmp_path):
    write_scene(tmp_path, "africa", 3, 70, 90)
    out = tmp_path / "map.tif"
    summary = trained.map_scene(str(tmp_path / "scene.tif"), str(out), offset=OFFSET)
    with rasterio.open(out) as written:
        found = np.bincount(written.read(1).ravel(), minlength=6)
    np.testing.assert_array_equal(summary.pixels, found)


def test_several_images_are_predicted_as_each_alone(trained, chips):
    """Of a size that is no multiple of anything, without data in places, in batches of any size."""
    image = chips[0].image[:200, :270].copy()
    image[:50, :60] = 0
    stack = np.stack([image, image[::-1], np.zeros_like(image)])
    for batch_size in (1, 4):
        together = trained.predict(stack, batch_size=batch_size)
        assert together.shape == stack.shape[:3]
        for one, of_many in zip(stack, together, strict=True):
            np.testing.assert_array_equal(trained.predict(one), of_many)
    assert not together[0, :50, :60].any()
    assert (together[0, 60:] > 0).all()
    assert not together[2].any()
    values = trained.predict_proba(stack)
    np.testing.assert_array_equal(values.argmax(axis=-1), together)
    assert trained.predict(stack[:0]).shape == (0, *image.shape[:2])


def test_other_kinds_of_whole_numbers_are_as_good(trained, chips):
    image = chips[0].image[:64, :64]
    want = trained.predict(image)
    for array in (image.astype(np.int64), image.astype(np.int16), jnp.asarray(image)):
        np.testing.assert_array_equal(trained.predict(array), want)


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "sentence"),
    [
        ((64, 64), "uint16", {}, r"shape \(64, 64\) is not \(height, width, band\)"),
        ((0, 64, 13), "uint16", {}, r"shape \(0, 64, 13\)"),
        ((64, 64, 13), "float32", {}, "holds float32 but digital numbers are expected"),
        ((64, 64, 13), "uint32", {}, "holds 70000 but digital numbers end at 65,535"),
        ((64, 64, 12), "uint16", {}, "has 12 bands but the model sees 13 .*name the image's bands"),
        ((64, 64, 2), "uint16", {"bands": ["B4", "B08"]}, "the image lacks band B01, .*has B04, B"),
        ((64, 64, 2), "uint16", {"bands": ["B04"]}, "has 2 bands but 1 names"),
        ((64, 64, 13), "uint16", {"offset": -1}, "offset -1 is not a number of DN"),
        ((64, 64, 13), "uint16", {"batch_size": 0}, "batch size 0"),
        ((64, 64, 13), "uint16", {"overlap": 200}, "overlap 200"),
    ],
)
def test_an_image_that_is_none_is_refused(trained, shape, dtype, options, sentence):
    image = np.full(shape, 70_000 if dtype == "uint32" else 1).astype(dtype)
    with pytest.raises(jaxcrop.InputError, match=sentence):
        trained.predict(image, **options)


def test_scores_are_those_of_the_predictions(trained, chips, capsys):
    label = np.stack([chip.label for chip in chips])
    predicted = trained.predict(np.stack([chip.image for chip in chips]))
    got = trained.evaluate("test", batch_size=2)["model"]["overall_accuracy"]
    np.testing.assert_allclose(got, (predicted == label)[label > 0].mean(), atol=1e-4)
    assert trained.title in capsys.readouterr().out


def test_a_run_that_is_none_is_refused(tmp_path):
    with pytest.raises(jaxcrop.InputError, match="is no run folder"):
        jaxcrop.load_run(tmp_path)


def test_a_model_begins_with_its_weights(tmp_path):
    """Converted from timm, the stem extended to 13 bands by timm's own rule: the same maps."""
    torch = pytest.importorskip("torch")
    from timm.models import adapt_input_conv

    theirs = randomise(timm().create_model("resnet18", num_classes=0), seed=1)
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    like = ["--like", "imagenet-resnet18-v1"]
    weights_convert(["convert", str(tmp_path / "resnet18.pth"), str(tmp_path / "weights"), *like])
    extended = timm().create_model("resnet18", in_chans=13, features_only=True).eval()
    state = theirs.state_dict()
    state["conv1.weight"] = adapt_input_conv(13, state["conv1.weight"])
    extended.load_state_dict(state, strict=False)

    model = jaxcrop.models.create("imagenet", "resnet18", weights=tmp_path / "weights", classes=3)
    model.eval()
    dn = np.random.default_rng(0).integers(0, 5000, (2, 64, 96, 13)).astype(np.uint16)
    image = jaxcrop.data.normalise(jnp.asarray(dn), model.band_input)
    np.testing.assert_allclose(image, dn / 10_000, rtol=1e-6)
    with torch.no_grad():
        wanted = extended(torch.from_numpy(np.array(image)).permute(0, 3, 1, 2))
    for got, want in zip(nnx.jit(model.backbone)(image)[-4:], wanted[-4:], strict=True):
        of_torch = want.permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(got, of_torch, atol=1e-4 * np.abs(of_torch).max())
    assert nnx.jit(model)(image).shape == (2, 64, 96, 3)


def test_a_model_begins_with_a_run(run, trained, unet, chips):
    arguments = {"weights": run, "decoder": "unet"}
    model = jaxcrop.models.create("imagenet", "resnet18", **arguments)
    model.eval()
    image = chips[0].image[:64, :64]
    normalised = jaxcrop.data.normalise(jnp.asarray(image[None]), model.band_input)
    want = unet(image)
    got = nnx.jit(model)(normalised)[0]
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())

    fewer = state_variables(jaxcrop.models.create("imagenet", "resnet18", classes=3, **arguments))
    whole = state_variables(trained.model)
    new = [n for n in whole if not np.array_equal(fewer[n].get_value(), whole[n].get_value())]
    assert [fewer[name].shape[-1] for name in new] == [3] * len(new)
    assert {name.rpartition(".")[2] for name in new} == {"kernel", "bias"}


def test_the_seed_draws_what_no_weights_fill():
    def values(seed):
        model = jaxcrop.models.create(
            "satlas", "resnet18", decoder="linear", weights="random", bands=["B08"], seed=seed
        )
        assert model.band_input.bands == ("B08",)
        assert model.band_input.divisor == (8160.0,)
        return np.asarray(nnx.state(model, nnx.Param)["backbone"]["conv1"]["kernel"].get_value())

    first = values(1)
    assert first.shape[2] == 1
    np.testing.assert_array_equal(first, values(1))
    assert not np.array_equal(first, values(2))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"backbone": "satlas"}, "missing: .*satlas-resnet50-si-ms .*weights_convert fetch satlas"),
        ({"backbone": "satlas", "bands": ["B04"]}, "--bands needs --weights random"),
        ({"backbone": "landsat"}, "no weights of landsat are published: choose ssl4eo"),
        ({"backbone": "ssl4eo", "architecture": "swin-v2-t"}, "ssl4eo has no weights of swin-v2-t"),
        ({"backbone": "satlas", "weights": "absent"}, "absent holds no converted weights"),
        ({"backbone": "satlas", "weights": "random", "decoder": "net"}, "unknown decoder 'net'"),
        (
            {"backbone": "satlas", "weights": "random", "architecture": "net"},
            "unknown backbone 'net'",
        ),
        ({"backbone": "satlas", "weights": "random", "classes": 0}, "classes must be at least 1"),
        ({"backbone": "satlas", "weights": "imagenet-resnet18-v1"}, "holds weights of imagenet"),
    ],
)
def test_a_model_that_cannot_be_is_refused(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCROP_CACHE", str(tmp_path))
    with pytest.raises(jaxcrop.InputError, match=sentence):
        jaxcrop.models.create(**arguments)
