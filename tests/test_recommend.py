"""`python -m jaxcrop.recommend` from built records to its answer, on weights that are drawn."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from made_up import fill

from jaxcrop import recommend
from jaxcrop.crops import NUM_CLASSES
from jaxcrop.data import splits
from jaxcrop.data.index import index_of
from jaxcrop.errors import InputError
from jaxcrop.models.segmenter import abstract_segmenter
from jaxcrop.probes import candidates as candidates_module
from jaxcrop.probes.candidates import RAW, candidates
from jaxcrop.probes.study import design, find_region, fit_chips
from jaxcrop.weights import INPUTS
from jaxcrop.weights.converted import MANIFEST_FIELDS, save_converted, state_variables
from jaxcrop.weights.safetensors import Spec

pytestmark = pytest.mark.usefixtures("small_backbones")

TRIAL = ("--weights", "random", "--splits", "random", "--seeds", "2")


def save(folder, architecture, family="ssl4eo", source="sentinel2", seed=0):
    """Converted weights of random values."""
    seen = INPUTS[source]
    model = abstract_segmenter(architecture, "linear", len(seen.bands), NUM_CLASSES)
    fill(model, seed)
    tensors = {
        name: np.asarray(variable[...])
        for name, variable in state_variables(model).items()
        if name.startswith("backbone.")
    }
    manifest = dict.fromkeys(MANIFEST_FIELDS) | {
        "family": family,
        "architecture": architecture,
        "in_channels": len(seen.bands),
        "bands": seen.bands,
        "offset": seen.offset,
        "divisor": seen.divisor,
        "clip": seen.clip,
    }
    specs = {name: Spec(array.dtype, array.shape) for name, array in tensors.items()}
    save_converted(folder, manifest, specs, tensors.values())


@pytest.fixture(scope="module")
def cache(small_backbones, tmp_path_factory):
    """A cache that holds two published sets."""
    folder = tmp_path_factory.mktemp("cache")
    save(folder / "weights" / "ssl4eo-resnet18-moco", "resnet18")
    save(folder / "weights" / "imagenet-resnet18-v1", "resnet18", "imagenet", "imagenet", seed=1)
    return folder


@pytest.fixture
def cached(cache, monkeypatch):
    monkeypatch.setenv("JAXCROP_CACHE", str(cache))
    return cache


def test_published_sets_of_the_cache_are_ranked(synthetic_region, cached, tmp_path, capsys):
    arguments = [
        *("--data", str(synthetic_region), "--splits", "random", "--seeds", "2"),
        *("--budgets", "3", "7", "900", "--target", "0.9"),
        *("--out", str(tmp_path / "found.json"), "--picture", str(tmp_path / "found.png")),
    ]
    recommend.main(arguments)
    said = capsys.readouterr().out
    assert "synthetic sact" in said
    assert "8 training chips, 1 test chips" in said
    assert "Note: there are 8 training chips, not 900." in said
    assert "no weights of satlas are in the cache: `python -m weights_convert fetch satlas" in said
    assert "100 more labelled chips beyond 7 would bring" in said
    assert "say nothing of real crops" in said
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["synthetic"] is True
    assert found["budgets"] == [3, 7]
    names = {"raw bands", "ssl4eo-resnet18-moco", "imagenet-resnet18-v1"}
    assert {one["name"] for one in found["ranking"]} == names
    scores = [one["overall_accuracy"]["value"] for one in found["ranking"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.5
    for one in found["ranking"]:
        assert one["curve"]["7"] == one["overall_accuracy"]
    assert (tmp_path / "found.png").stat().st_size > 1000
    # Once more: the features are there, and the answer is the same.
    recommend.main(arguments)
    again = json.loads((tmp_path / "found.json").read_text())
    assert again["ranking"] == found["ranking"]
    assert again["learning_curve"] == found["learning_curve"]


def test_random_weights_are_called_so(synthetic_region, tmp_path, capsys):
    recommend.main(
        [
            *("--data", str(synthetic_region), *TRIAL, "--budgets", "3", "6", "--probe", "knn"),
            *("--architectures", "resnet18", "--families", "satlas"),
            *("--features", str(tmp_path / "features")),
        ]
    )
    said = capsys.readouterr().out
    assert "random-satlas-resnet18" in said
    assert "Beware: random weights were never trained" in said
    assert len(list((tmp_path / "features").glob("*/about.json"))) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "no pretrained weights of ssl4eo, satlas, imagenet are in the cache"),
        (("--weights", "ssl4eo-resnet50-moco"), "is not in the cache: `python -m weights_convert"),
        (("--weights", "sl4eo"), "no published weights are called sl4eo"),
        ((*TRIAL, "--budgets", "90"), "8 training chips are fewer than the smallest budget, 90"),
        ((*TRIAL, "--budgets", "1"), "budgets of at least 2"),
        (("--splits", "blocked"), "or give --splits random, whose answer is too good"),
        ((*TRIAL, "--region", "asia"), "holds no records of nccm, variant standard (it has sact)"),
        ((*TRIAL, "--variant", "paper"), "holds no records, variant paper"),
        ((*TRIAL, "--out", "found.html"), "--out found.html must end in .json"),
        ((*TRIAL, "--target", "90"), "--target must be above 0 and below 1"),
        ((*TRIAL, "--picture", "found.xyz"), "names no picture format"),
    ],
)
def test_what_cannot_be_answered_is_said(
    synthetic_region, tmp_path, monkeypatch, capsys, *, arguments, sentence
):
    monkeypatch.setenv("JAXCROP_CACHE", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        recommend.main(
            ["--data", str(synthetic_region), "--splits", "random", "--budgets", "3", *arguments]
        )
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


def test_help_needs_nothing_heavy():
    code = (
        "import sys\nfrom jaxcrop import recommend\n"
        "try: recommend.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'jax', 'matplotlib', 'rasterio', 'scipy', 'tensorflow_datasets', 'pyarrow'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_budgets_are_those_of_a_training_run_and_test_chips_are_apart(synthetic_records):
    study = design(synthetic_records, budgets=(5, 3, 99), seeds=2, by="random")
    assert study.budgets == (3, 5)
    index = index_of(synthetic_records)
    parts = splits.divided(index, "random")
    for budget, of_budget in zip(study.budgets, study.labelled, strict=True):
        for seed, chosen in enumerate(of_budget):
            ids = [study.train.ids[place] for place in chosen]
            assert ids == list(splits.budget(index, parts["train"], budget, seed))
    assert set(study.test.ids) == set(parts["test"])
    assert study.pool == len(parts["train"])


def test_a_region_is_found_in_or_above_its_folder(synthetic_region, synthetic_records, tmp_path):
    for folder in (synthetic_region, synthetic_region.parent, synthetic_records.folder):
        assert find_region(folder, None, "standard").folder == synthetic_records.folder
    for region in ("africa", "sact"):
        assert find_region(synthetic_region, region, "standard").name == "sact"
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(synthetic_region)
    copies = tmp_path / "copies"
    for name in ("sact", "other"):
        folder = copies / name / "standard" / "1.0.0"
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").touch()
    with pytest.raises(
        InputError, match="several sets of records: give --region, one of other, sa"
    ):
        find_region(copies, None, "standard")


def test_weights_whose_bands_the_records_lack_are_left_out(cached):
    records = SimpleNamespace(bands=("B04", "B03", "B02"))
    with pytest.raises(InputError, match="ssl4eo-resnet18-moco is left out: the records lack B01"):
        candidates(records)


def test_candidates_are_the_weights_of_their_files(cached, synthetic_records):
    found, _ = candidates(synthetic_records, families=["ssl4eo"])
    assert [one.name for one in found] == [RAW, "ssl4eo-resnet18-moco"]
    by_folder, _ = candidates(
        synthetic_records, weights=[str(cached / "weights" / "ssl4eo-resnet18-moco")]
    )
    assert by_folder[1].kind == "converted"
    assert by_folder[1].load().digest == found[1].load().digest
    model = abstract_segmenter("resnet18", "linear", 13, NUM_CLASSES)
    fill(model, 0)
    backbone = candidates_module.FrozenBackbone.of(model, "resnet18", found[1].band_input)
    assert backbone.digest == found[1].load().digest


def test_the_penalty_is_that_of_the_least_cost_on_chips_held_out():
    linear_model = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    rng = np.random.default_rng(0)
    chips, pixels, channels = 9, 20, 40
    truth = rng.normal(size=(channels, 3))
    x = rng.normal(size=(chips, pixels, channels)).astype(np.float32)
    noise = 3 * rng.gumbel(size=(chips, pixels, 3))
    label = (1 + (x @ truth + noise).argmax(-1)).astype(np.uint8)
    found = fit_chips(x, label, np.ones((chips, pixels), np.float32))

    def fitted(penalty, shown):
        scaler = preprocessing.StandardScaler().fit(x[shown].reshape(-1, channels))
        rows = scaler.transform(x[shown].reshape(-1, channels))
        model = linear_model.LogisticRegression(
            C=1 / (penalty * len(rows)), tol=1e-7, max_iter=9999
        )
        return scaler, model.fit(rows, label[shown].ravel())

    costs = {}
    for penalty in (1e-3, 1e-2, 1e-1, 1.0):
        costs[penalty] = 0
        for fold in range(3):
            held = np.arange(chips) % 3 == fold
            scaler, model = fitted(penalty, ~held)
            chance = model.predict_proba(scaler.transform(x[held].reshape(-1, channels)))
            of_truth = chance[np.arange(len(chance)), label[held].ravel() - 1]
            costs[penalty] -= np.log(of_truth).mean()
    best = min(costs, key=costs.get)
    assert best not in (1e-3, 1.0)  # or the choice would not be tested
    scaler, model = fitted(best, np.ones(chips, bool))
    kernel = np.asarray(found.kernel[0]).T[1:4] * scaler.scale_
    np.testing.assert_allclose(kernel, model.coef_, atol=0.02 * np.abs(model.coef_).max())
