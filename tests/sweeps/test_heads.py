"""Heads on kept features are the heads of training runs."""

from threading import Barrier, current_thread

import jax
import numpy as np
import pytest

from jaxcrop.config import TrainConfig
from jaxcrop.errors import InputError
from jaxcrop.features.backbones import FrozenBackbone
from jaxcrop.features.bank import FeatureBank
from jaxcrop.features.maps import ChipSet
from jaxcrop.features.store import FeatureStore
from jaxcrop.files import json_lines
from jaxcrop.models.segmenter import random_segmenter
from jaxcrop.sweeps import heads
from jaxcrop.sweeps.heads import Job, head_values, train_heads
from jaxcrop.train import train_run
from jaxcrop.training.runs import experiment_of
from jaxcrop.training.scores import evaluate_run
from jaxcrop.weights import band_input

pytestmark = pytest.mark.usefixtures("small_backbones")

RATES = (2e-3, 1e-4)


def config(records, decoder, rate, run_dir=None, *, steps=2, **more):
    return TrainConfig.of(
        backbone="satlas",
        region="africa",
        architecture="resnet18",
        decoder=decoder,
        weights="random",
        augmentation="views",
        keep_maps="off",
        views=2,
        budget=6,
        batch_size=2,
        steps=steps,
        batchnorm_batches=1,
        learning_rate=rate,
        data_dir=records.folder.parents[2],
        run_dir=run_dir,
        **more,
    )


def trained_heads(records, decoder, *, together, rates=RATES, folder=None, **more):
    seen = band_input("satlas")
    model = random_segmenter("resnet18", decoder, len(seen.bands), 6, seed=0)
    configs = [config(records, decoder, rate, **more) for rate in rates]
    experiment = experiment_of(configs[0], {"africa": records})
    chips = sorted({i for of in experiment.ids.values() for i in of["africa"]})
    bank = FeatureBank(
        FrozenBackbone.of(model, "resnet18", seen),
        {"africa": ChipSet(records, experiment.indices["africa"], tuple(chips))},
        FeatureStore(folder),
    )
    jobs = [Job(config, experiment, head_values(model)) for config in configs]
    return train_heads(jobs, model, bank, together=together)


@pytest.mark.parametrize(("decoder", "rates"), [("linear", RATES), ("unet", RATES[1:])])
def test_heads_equal_training_runs(synthetic_records, tmp_path, decoder, rates):
    """Chips, views, order, loss, statistics and what is tested are those of a run.

    The first loss is of the same weights, batch and views; AdamW makes much of rounding later, of
    a U-Net's at the higher rate more than what would show a mistake.
    """
    found = trained_heads(
        synthetic_records, decoder, together=False, rates=rates, folder=tmp_path / "features"
    )
    for rate, head in zip(rates, found, strict=True):
        run, whole = train_run(
            config(synthetic_records, decoder, rate, tmp_path / str(rate)),
            lambda run: (
                run,
                evaluate_run(run, run.experiment().chips("test", run.band_input), "best", 2),
            ),
        )
        want = [
            line["train/loss"]
            for line in json_lines(run.folder / "metrics.jsonl")
            if "train/loss" in line
        ]
        np.testing.assert_allclose(head.losses[0], want[0], rtol=1e-5)
        np.testing.assert_allclose(head.losses, want, rtol=5e-3)
        assert head.evaluation.chip_ids == whole.chip_ids
        np.testing.assert_allclose(head.evaluation.loss, whole.loss, rtol=5e-3)
        np.testing.assert_array_equal(head.evaluation.per_chip.sum(2), whole.per_chip.sum(2))
        moved = np.abs(head.evaluation.per_chip - whole.per_chip).sum() / whole.per_chip.sum()
        assert moved < 0.02  # pixels whose two best logits are nearly equal


@pytest.mark.parametrize("decoder", ["linear", "unet"])
def test_heads_trained_together_equal_those_trained_apart(synthetic_records, tmp_path, decoder):
    both = [
        trained_heads(synthetic_records, decoder, together=together, folder=tmp_path / "features")
        for together in (False, True)
    ]
    for one, other in zip(*both, strict=True):
        np.testing.assert_allclose(one.losses[0], other.losses[0], rtol=1e-5)
        np.testing.assert_allclose(one.losses, other.losses, rtol=5e-3)
        np.testing.assert_allclose(one.evaluation.loss, other.evaluation.loss, rtol=5e-3)
    slow, fast = both[0]
    assert abs(slow.losses[1] - fast.losses[1]) > 0.05  # the rates do differ


def test_a_head_is_the_same_to_the_bit_beside_another(synthetic_records, tmp_path):
    both, (alone,) = (
        trained_heads(synthetic_records, "unet", together=False, rates=rates, folder=tmp_path)
        for rates in (RATES, RATES[:1])
    )
    np.testing.assert_array_equal(both[0].losses, alone.losses)
    np.testing.assert_array_equal(both[0].evaluation.per_chip, alone.evaluation.per_chip)
    np.testing.assert_array_equal(both[0].evaluation.calibration, alone.evaluation.calibration)


def test_programs_of_several_steps_equal_those_of_one(synthetic_records, tmp_path):
    """Of five chips drawn with replacement, every third batch holds one: two programs to a pass."""
    longer = {"sampling": "replacement", "steps": None, "epochs": 2, "folder": tmp_path}
    together, apart = (
        trained_heads(synthetic_records, "linear", together=together, **longer)
        for together in (True, False)
    )
    for one, other in zip(together, apart, strict=True):
        assert one.losses.shape == (6,)
        np.testing.assert_allclose(one.losses, other.losses, rtol=5e-3)
        np.testing.assert_allclose(one.evaluation.loss, other.evaluation.loss, rtol=5e-3)


@pytest.mark.parametrize("failing", [0, 1])
def test_heads_stop_where_one_fails(synthetic_records, monkeypatch, failing):
    """As where a SIGTERM raises in the main thread: the process would end with the last head."""
    filled, fill, both, begin = [], FeatureBank.fill, Barrier(2), heads._train

    def numbered(jobs, *arguments):
        current_thread().name = f"head {RATES.index(jobs[0].config.optimizer.learning_rate)}"
        both.wait(60)  # until either head is at work
        return begin(jobs, *arguments)

    def fails(bank, *arguments):
        filled.append(name := current_thread().name)
        if name == f"head {failing}":
            raise OSError("gone")
        fill(bank, *arguments)

    monkeypatch.setattr(heads, "_train", numbered)
    monkeypatch.setattr(FeatureBank, "fill", fails)
    with pytest.raises(OSError, match="gone"):
        trained_heads(synthetic_records, "linear", together=False, steps=1000)
    assert len(filled) < 500


def test_a_head_that_diverges_does_not_stop_the_others(synthetic_records):
    good, bad = trained_heads(synthetic_records, "linear", together=True, rates=(1e-3, 1e30))
    assert isinstance(bad, InputError)
    assert "learning rate 1e+30" in str(bad)
    assert good.evaluation.per_chip.sum() > 0


def test_heads_lie_on_several_devices(synthetic_records):
    """The conftest gives two virtual devices: of two heads each has one."""
    assert jax.device_count() == 2
    two = trained_heads(synthetic_records, "linear", together=True)
    (one,) = trained_heads(synthetic_records, "linear", together=True, rates=RATES[:1])
    np.testing.assert_allclose(two[0].losses, one.losses, rtol=1e-4)
