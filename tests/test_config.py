from pathlib import Path

import pytest

from jaxcrop.config import ARCHITECTURE_TITLES, DECODER_TITLES, TrainConfig
from jaxcrop.errors import InputError


def test_the_choices_are_what_can_be_built():
    from jaxcrop.models.backbones import BACKBONES
    from jaxcrop.models.decoders import DECODERS

    assert list(ARCHITECTURE_TITLES) == list(BACKBONES)
    assert list(DECODER_TITLES) == list(DECODERS)


def _africa(**settings):
    return TrainConfig.of(backbone="satlas", region="africa", **settings)


def test_settings_say_which_regions_take_part():
    mixed = _africa(setting="ood+id", budget=10)
    assert mixed.data.regions == ("africa", "asia", "europe", "north-america", "south-america")
    assert _africa().data.regions == ("africa",)
    assert _africa(setting="ood+id", ood_mode="pretrain").data.regions == ("africa",)
    others = _africa(setting="ood", training_regions=("europe", "africa"))
    assert others.data.regions == ("africa", "europe")


def test_settings_go_by_their_names_alone():
    config = _africa(steps=3, loss=("dice",), run_dir=Path("runs"))
    assert (config.optimizer.steps, config.loss.loss) == (3, ("dice",))
    assert TrainConfig.of(**config.settings()) == config
    assert config.replaced(steps=4) == _africa(steps=4, loss=("dice",), run_dir=Path("runs"))
    assert config == _africa(steps=3, loss=("dice",), run_dir="runs")
    with pytest.raises(TypeError, match="stepz"):
        _africa(stepz=3)


@pytest.mark.parametrize(
    ("asked", "chips", "size", "batches"),
    [
        (None, 90, 4, 4),
        (None, 90, 16, 1),
        (None, 90, 12, 2),
        (None, 90, 64, 1),
        (None, 9, 4, 2),  # whole batches only
        (0, 90, 4, 0),
        (3, 90, 16, 3),
        (30, 90, 16, 5),
    ],
)
def test_batches_of_16_chips_set_the_statistics_or_as_many_as_asked_for(
    asked, chips, size, batches
):
    config = _africa(batchnorm_batches=asked)
    assert config.optimizer.statistics_batches(chips, size) == batches


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"setting": "ood", "budget": 10}, "--setting ood has no use for a --budget"),
        ({"training_regions": ("asia",)}, "--training-regions need --setting ood"),
        ({"bands": ("B04",)}, "--bands needs --weights random"),
        ({"ood_mode": "pretrain"}, r"--ood-mode pretrain needs --setting ood\+id"),
        ({"tune": "lora"}, "--tune lora needs attention, which resnet50 lacks"),
        ({"loss_weights": (1.0, 2.0)}, "--loss-weights needs a factor for each loss: 2 for 1"),
        ({"loss": ()}, "--loss-weights needs a factor"),
        ({"accumulate": 3}, "--accumulate 3 does not divide --batch-size 16"),
        ({"coordinator": "a:1"}, "come together"),
        ({"ema": 1.0}, "--ema must be from 0 to below 1, not 1.0"),
        ({"seed": -1}, "--seed must be 0 or more, not -1"),
        ({"learning_rate": float("nan")}, "--learning-rate must be above 0"),
        ({"clip_norm": 0.0}, "--clip-norm must be above 0"),
        ({"tune": "Full"}, "--tune must be one of frozen, full, .*, not Full"),
        ({"loss": ["dice", "dise"]}, "--loss must be one of .*, not dise"),
        ({"setting": "ood", "training_regions": ("mars",)}, "--training-regions must be one of"),
    ],
)
def test_settings_out_of_range_or_at_odds_are_refused(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        _africa(**settings)
