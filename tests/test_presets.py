import pytest

from jaxcrop.config import TrainConfig
from jaxcrop.errors import InputError
from jaxcrop.presets import DEMO_DEFAULTS, parse_train_config

NEEDED = ["--backbone", "satlas", "--region", "africa"]
AFRICA = {"backbone": "satlas", "region": "africa"}


def test_yaml_sets_and_the_command_line_wins(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("tune: full\nsteps: 5\nweights: random\nbands: [B04, B8A]\nrun_dir: null\n")
    config = parse_train_config([*NEEDED, "--config", str(path), "--steps", "7"])
    assert config == TrainConfig.of(
        **AFRICA, tune="full", steps=7, weights="random", bands=("B04", "B8A")
    )


def test_the_demo_has_defaults_of_its_own():
    config = parse_train_config([*NEEDED, "--demo", "--steps", "3"])
    assert config == TrainConfig.of(**AFRICA, demo=True, **DEMO_DEFAULTS | {"steps": 3})


@pytest.mark.parametrize("text", ["steps: many", "stepz: 5", "region: mars"])
def test_a_bad_value_in_yaml_is_refused_as_on_the_command_line(tmp_path, text, capsys):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit) as stopped:
        parse_train_config([*NEEDED, "--config", str(path)])
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


def test_the_papers_protocol_depends_on_family_and_setting():
    """datasets_spec 8: decoder by family, 100 passes in distribution and 50 out of it."""
    paper = parse_train_config([*NEEDED, "--preset", "paper"])
    assert (paper.model.decoder, paper.optimizer.epochs) == ("fpn", 100)
    assert (paper.optimizer.batch_size, paper.scoring.test_checkpoint) == (128, "last")
    mixed = ["--setting", "ood+id", "--budget", "10", "--sampling", "shuffled"]
    other = ["--backbone", "ssl4eo", *NEEDED[2:], "--preset", "paper", *mixed]
    paper = parse_train_config(other)
    assert (paper.model.decoder, paper.optimizer.epochs) == ("unet", 50)
    assert paper.optimizer.sampling == "shuffled"  # any switch can be turned back
