import pytest

from jaxcrop.config import (
    ARCHITECTURE_TITLES,
    DECODER_TITLES,
    DEMO_DEFAULTS,
    TrainConfig,
    parse_train_config,
)
from jaxcrop.errors import InputError

NEEDED = ["--backbone", "satlas", "--region", "africa"]


def test_yaml_sets_and_the_command_line_wins(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("freeze: false\nsteps: 5\nweights: random\nbands: [B04, B8A]\nrun_dir: null\n")
    config = parse_train_config([*NEEDED, "--config", str(path), "--steps", "7"])
    assert config == TrainConfig(
        "satlas", "africa", freeze=False, steps=7, weights="random", bands=("B04", "B8A")
    )


def test_the_demo_has_defaults_of_its_own():
    config = parse_train_config([*NEEDED, "--demo", "--steps", "3"])
    assert config == TrainConfig("satlas", "africa", demo=True, **DEMO_DEFAULTS | {"steps": 3})


@pytest.mark.parametrize("text", ["steps: many", "stepz: 5", "region: mars"])
def test_a_bad_value_in_yaml_is_refused_as_on_the_command_line(tmp_path, text, capsys):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit) as stopped:
        parse_train_config([*NEEDED[:2], *NEEDED[2:], "--config", str(path)])
    assert stopped.value.code == 2
    assert text.split(": ")[1] in capsys.readouterr().err or "stepz" in text


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"settings\.yaml"):
        parse_train_config([*NEEDED, "--config", str(path)])
    with pytest.raises(InputError, match=r"absent\.yaml"):
        parse_train_config([*NEEDED, "--config", str(tmp_path / "absent.yaml")])


def test_the_choices_are_what_can_be_built():
    from jaxcrop.models.backbones import BACKBONES
    from jaxcrop.models.decoders import DECODERS

    assert list(ARCHITECTURE_TITLES) == list(BACKBONES)
    assert list(DECODER_TITLES) == list(DECODERS)


def test_settings_say_which_regions_take_part():
    config = parse_train_config([*NEEDED, "--setting", "ood+id", "--budget", "10"])
    assert config.regions == ("africa", "asia", "europe", "north-america", "south-america")
    assert TrainConfig("satlas", "asia").regions == ("asia",)
    others = TrainConfig("satlas", "asia", setting="ood", training_regions=("europe", "asia"))
    assert others.regions == ("asia", "europe")
    with pytest.raises(InputError, match="--setting ood has no use for a --budget"):
        TrainConfig("satlas", "africa", setting="ood", budget=10)
    with pytest.raises(InputError, match="--training-regions need --setting ood"):
        TrainConfig("satlas", "africa", training_regions=("asia",))


def test_pretrained_weights_fix_their_bands():
    with pytest.raises(InputError, match="--bands needs --weights random"):
        TrainConfig("satlas", "africa", bands=("B04",))
