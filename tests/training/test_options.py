"""What each option of a run does, seen in the run's folder; the backbone is a tiny ViT."""

import json

import jax
import numpy as np
import pytest
from launching import arrays, steps
from small_regions import build_small_region
from small_runs import train_small_run

from jaxcrop.config import TrainConfig
from jaxcrop.train import train_and_evaluate
from jaxcrop.training.network import values_of
from jaxcrop.training.runs import create_model, open_run

RATE = 1e-3


pytestmark = pytest.mark.usefixtures("small_backbones")


def _train(folder, records, **settings):
    small = {
        **{"architecture": "vit-s16", "decoder": "linear", "batch_size": 2, "steps": 1},
        **{"weight_decay": 0.0, "learning_rate": RATE},
    }
    return train_small_run(folder, records, **small | settings)


@pytest.fixture
def trained(tmp_path, synthetic_records):
    """Trains in a folder of its own: the run."""
    return lambda name="run", **settings: _train(tmp_path / name, synthetic_records, **settings)


PLAIN = {"tune": "full", "batch_size": 4, "steps": 4}
"""Two passes over eight chips: a program of cached steps is compiled for each number of them."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory, synthetic_records):
    """The losses of a run with which those that compute alike are compared."""
    return losses(_train(tmp_path_factory.mktemp("plain") / "run", synthetic_records, **PLAIN))


def losses(run):
    lines = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


def changes(run):
    """How far each parameter of the last checkpoint's model is from where it began, at most."""
    begun, ended = (jax.device_get(values_of(m)) for m in (create_model(run), run.model("last")))
    return {name: float(abs(ended[name] - begun[name]).max()) for name in begun}


def test_bitfit_moves_biases_alone(trained):
    moved = {name for name, change in changes(trained(tune="bitfit")).items() if change}
    assert {"backbone.blocks.0.mlp.fc1.bias", "decoder.classifiers.0.kernel"} <= moved
    assert all(name.startswith("decoder.") or name.endswith("bias") for name in moved)


def test_lora_adds_to_kernels_that_stay_as_they_are(trained):
    """The checkpoint has both; the model that it gives has their sums under the usual names."""
    run = trained(tune="lora", lora_rank=2, steps=2)
    begun, ended, stored = (
        values_of(create_model(run)),
        values_of(run.model("last")),
        arrays(run.folder),
    )
    kernels = {
        f"backbone.blocks.{k}.attn.{part}.kernel" for k in range(4) for part in ("qkv", "proj")
    }
    assert {n for n, c in changes(run).items() if c and n.startswith("backbone.")} == kernels
    for name in kernels:
        np.testing.assert_array_equal(stored[f"frozen/{name}"], begun[name])
        down, up = (stored[f"params/{name}.lora_{part}"] for part in "ab")
        assert down.shape[1] == 2
        np.testing.assert_allclose(ended[name], begun[name] + down @ up, atol=1e-6)


def test_rates_are_shares_of_the_learning_rate(trained):
    """AdamW's first step is its rate times the sign of the gradient."""
    run = trained(tune="discriminative", stage_decay=0.5, rates=(r"decoder\..*\.bias=0",))
    moved = changes(run)
    for name, share in (
        ("backbone.patch_embed.kernel", 1 / 16),
        ("backbone.blocks.0.mlp.fc1.kernel", 1 / 8),
        ("backbone.blocks.3.mlp.fc1.kernel", 1),
        ("decoder.classifiers.0.kernel", 1),
        ("decoder.classifiers.0.bias", 0),
    ):
        assert moved[name] == pytest.approx(share * RATE, rel=1e-2), name


def test_the_moving_average_is_what_is_kept(trained):
    run = trained(steps=2, eval_every=1, ema=0.15)
    first, second = (arrays(run.folder, step) for step in steps(run.folder))
    ended = values_of(run.model("last"))
    for name in ("decoder.classifiers.0.kernel", "decoder.classifiers.3.kernel"):
        of_first, now = first[f"average/{name}"], second[f"params/{name}"]
        assert abs(of_first - now).max() > RATE / 2
        np.testing.assert_allclose(ended[name], 0.15 * of_first + 0.85 * now, atol=1e-6)


def test_ways_to_compute_a_step_give_the_same(trained, plain):
    """And may change when a run goes on, unlike what a step computes."""
    for name, way in (
        ("cached and accumulated", {"device_cache": "on", "accumulate": 2}),
        ("sharded, read by a worker", {"shard_parameters": True, "workers": 1}),
    ):
        np.testing.assert_allclose(losses(trained(name, **PLAIN, **way)), plain, rtol=2e-4)
    trained("remat", **PLAIN | {"steps": 1})
    got = losses(trained("remat", **PLAIN, remat=True, device_cache="on"))
    np.testing.assert_allclose(got, plain, rtol=2e-4)


def test_bfloat16_computes_what_is_kept_in_float32(trained, plain):
    run = trained(**PLAIN, compute_dtype="bfloat16")
    narrow = losses(run)
    assert narrow != plain
    np.testing.assert_allclose(narrow, plain, rtol=2e-2)
    assert {
        value.dtype for name, value in arrays(run.folder).items() if "progress" not in name
    } == {np.dtype(np.float32)}


def test_a_clipped_gradient_has_the_norm_that_was_asked_for(trained):
    """After a step, AdamW's first moment is a tenth of the gradient."""
    stored = arrays(trained(clip_norm=0.003).folder)
    moments = [value for name, value in stored.items() if "/mu/" in name]
    norm = np.sqrt(sum((value.astype(float) ** 2).sum() for value in moments))
    assert norm == pytest.approx(0.1 * 0.003, rel=1e-4)


@pytest.mark.parametrize(("augmentation", "different"), [("none", 1), ("views", 1), ("fresh", 3)])
def test_passes_see_chips_alike_or_anew(trained, synthetic_records, augmentation, different):
    """A pass is a batch, and the model stays as it is."""
    settings = {"batch_size": synthetic_records.sizes["train"], "steps": 3, "learning_rate": 1e-20}
    run = trained(augmentation=augmentation, views=1, **settings)
    assert len({round(loss, 4) for loss in losses(run)}) == different


def test_losses_add_up(trained):
    def first(name, **settings):
        return losses(trained(name, **settings))[0]

    both = first("both", loss=("cross-entropy", "dice"), loss_weights=(1.0, 0.5))
    alone = first("first"), first("second", loss=("dice",))
    assert both == pytest.approx(alone[0] + 0.5 * alone[1], rel=1e-5)


def test_pretraining_on_other_regions_is_where_the_region_begins(tmp_path, synthetic_region):
    """One command, two runs: four steps on Asia, then two on Africa, none longer than the rate."""
    data = tmp_path / "data"
    build_small_region(tmp_path / "source", data, "asia", chips=10, seed=3)
    (data / "sact").symlink_to(synthetic_region / "sact")
    config = TrainConfig.of(
        **{"backbone": "satlas", "architecture": "vit-s16", "decoder": "linear", "tune": "full"},
        **{"setting": "ood+id", "ood_mode": "pretrain", "training_regions": ("asia",), "budget": 4},
        **{"weights": "random", "batch_size": 2, "epochs": 1, "weight_decay": 0.0},
        **{"region": "africa", "data_dir": data, "run_dir": tmp_path / "run"},
    )
    folder = train_and_evaluate(config)
    first, second = open_run(folder / "pretraining"), open_run(folder)
    assert first.data["sizes"]["train"] == {"asia": 8}
    assert second.data["sizes"] == {
        "train": {"africa": 3},
        "validation": {"africa": 1},
        "test": {"africa": 1},
    }
    assert second.data["sizes"]["test"] == first.data["sizes"]["test"]
    between, ended = values_of(first.model("best")), values_of(second.model("last"))
    name = "decoder.classifiers.0.kernel"
    assert abs(ended[name] - between[name]).max() < 2.1 * RATE
    assert abs(ended[name] - values_of(create_model(second))[name]).max() > 2.5 * RATE
