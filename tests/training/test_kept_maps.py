"""Runs on kept maps are those on images, whose backbone is run in every step."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from launching import logged
from small_runs import train_small_run

from jaxcrop.data.chip_lists import write_lists
from jaxcrop.data.index import index_of
from jaxcrop.errors import InputError
from jaxcrop.features import maps
from jaxcrop.training import loop, validation
from jaxcrop.training.kept_maps import MapFeed
from jaxcrop.training.network import values_of
from jaxcrop.training.scores import evaluate_run

pytestmark = pytest.mark.usefixtures("small_backbones")


def _train(folder, records, **settings):
    small = {
        **{"architecture": "resnet18", "decoder": "linear", "learning_rate": 1e-4, "budget": 6},
        **{"augmentation": "views", "views": 2, "batch_size": 2, "steps": 4, "eval_every": 2},
    }
    run = train_small_run(folder, records, **small | settings)
    assert not (folder / "maps").exists()
    return run


def _values(run):
    return {name: np.asarray(value) for name, value in values_of(run.model("last")).items()}


@pytest.mark.parametrize(
    "settings",
    [
        {"accumulate": 2, "augmentation": "none", "sampling": "replacement"},
        {"architecture": "vit-s16", "decoder": "fpn", "validation_loss": "batches", "ema": 0.5},
    ],
    ids=["linear", "neck and fpn"],
)
def test_a_run_equals_one_on_images(tmp_path, synthetic_records, settings):
    """The first loss is of the same weights; AdamW makes much of rounding later."""
    kept, images = (
        _train(tmp_path / how, synthetic_records, keep_maps=how, **settings)
        for how in ("auto", "off")
    )
    found, want = logged(kept.folder), logged(images.folder)
    assert found.keys() == want.keys()
    np.testing.assert_allclose(found[1, "train/loss"], want[1, "train/loss"], rtol=1e-5)
    for (step, name), value in want.items():
        if "loss" in name:
            np.testing.assert_allclose(found[step, name], value, rtol=5e-3)
    found, want = _values(kept), _values(images)
    assert found.keys() == want.keys()
    for name, value in want.items():
        if name.startswith("backbone."):
            np.testing.assert_array_equal(found[name], value)
        else:
            scale = np.abs(value).max()
            np.testing.assert_allclose(found[name], value, atol=1e-3 + 0.05 * scale, err_msg=name)
    loss, other = (
        evaluate_run(run, run.experiment().chips("test", run.band_input), "last", 2).loss
        for run in (kept, images)
    )
    np.testing.assert_allclose(loss, other, rtol=5e-3)


def test_a_run_goes_on_to_the_bit(tmp_path, synthetic_records):
    whole = _train(tmp_path / "whole", synthetic_records)
    _train(tmp_path / "parts", synthetic_records, steps=2)
    parts = _train(tmp_path / "parts", synthetic_records)
    assert logged(whole.folder) == logged(parts.folder)
    want, found = _values(whole), _values(parts)
    assert all(np.array_equal(want[name], found[name]) for name in want)


def test_arrays_are_filled_when_what_reads_them_is_done(tmp_path, synthetic_records, monkeypatch):
    """Whichever programs follow each other: statistics, validation and steps are slow here."""
    computed, early = [], []

    @jax.jit
    def late(tree):
        wait = io_callback(lambda: time.sleep(0.1) or np.float32(0), jnp.float32(0))
        return jax.lax.optimization_barrier((tree, wait))[0]

    def slow(make):
        def made(*arguments, **how):
            step = make(*arguments, **how)

            def run(*operands):
                computed.append(late(step(*operands)))
                return computed[-1]

            return run

        return made

    def told(feed, *arguments):
        early.extend(x for result in computed[:-1] for x in jax.tree.leaves(result) if not ready(x))
        return batch(feed, *arguments)

    def ready(array):
        return array.is_deleted() or array.is_ready()

    batch = MapFeed._batch
    monkeypatch.setattr(MapFeed, "_batch", told)
    monkeypatch.setattr(validation, "make_statistics_step", slow(validation.make_statistics_step))
    monkeypatch.setattr(validation, "make_eval_step", slow(validation.make_eval_step))
    monkeypatch.setattr(loop, "make_train_step", slow(loop.make_train_step))
    ids = sorted(index_of(synthetic_records).chip_id.tolist())
    parts = {"train": ids[:4], "validation": ids[4:8], "test": ids[8:]}
    write_lists({name: tuple(part) for name, part in parts.items()}, tmp_path / "lists")
    settings = {"budget": None, "splits": str(tmp_path / "lists"), "batchnorm_batches": 2}
    _train(tmp_path / "run", synthetic_records, decoder="unet", **settings)
    assert len(computed) == 4 + 2 * (2 + 2)
    assert not early


@pytest.mark.parametrize(("decoder", "plain"), [("unet", 2), ("linear", 0)])
def test_the_backbone_is_run_once_for_each_chip_and_view(
    tmp_path, synthetic_records, monkeypatch, decoder, plain
):
    """Five chips train in two views, one validates as it is; two set statistics, where any move."""
    done = []

    def told(backbone, chips, *arguments, **how):
        done.append(len(chips))
        return over_chips(backbone, chips, *arguments, **how)

    over_chips = maps.over_chips
    monkeypatch.setattr(maps, "over_chips", told)
    settings = {"decoder": decoder, "budget": 6, "batchnorm_batches": 1, "steps": 10}
    _train(tmp_path / "run", synthetic_records, **settings)
    assert sorted(done) == [plain + 1, 5, 5]


def test_maps_that_change_cannot_be_kept(tmp_path, synthetic_records):
    needed = "--tune frozen, --augmentation views or none"
    with pytest.raises(InputError, match=f"--keep-maps on needs {needed}$"):
        _train(tmp_path, synthetic_records, keep_maps="on", tune="full", augmentation="fresh")
