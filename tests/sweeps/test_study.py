"""Study files: which cells they ask for, and in what order."""

import textwrap

import pytest

from jaxcrop.errors import InputError
from jaxcrop.sweeps.study import config_of, read_study

PAPER = """
title: Trial
settings: {preset: paper, weights: random}
parts:
  id:
    region: [africa, asia]
    backbone: [ssl4eo, satlas]
    budget: [10, 100]
    seed: [0, 1]
    learning-rate: [1e-3, 1e-4]
  ood:
    region: africa
    setting: ood
    models:
      - {backbone: ssl4eo}
      - {backbone: satlas, decoder: unet, title: Satlas below a U-Net}
    traps:
      stray classes: {predict: all}
      rice: {variant: paper}
"""


def read(tmp_path, text):
    (tmp_path / "study.yaml").write_text(textwrap.dedent(text))
    return read_study(tmp_path / "study.yaml")


def test_a_part_is_every_combination_of_its_lists(tmp_path):
    study = read(tmp_path, PAPER)
    assert study.title == "Trial"
    cells = [cell for cell in study.cells if cell.part == "id"]
    assert len(cells) == 2**5
    assert {(c.region, c.family, c.budget, c.seed, c.learning_rate) for c in cells} == {
        (region, family, budget, seed, rate)
        for region in ("africa", "asia")
        for family in ("ssl4eo", "satlas")
        for budget in (10, 100)
        for seed in (0, 1)
        for rate in (1e-3, 1e-4)
    }


def test_a_cell_is_a_training_run_with_the_presets_defaults(tmp_path):
    cell = next(c for c in read(tmp_path, PAPER).cells if c.family == "satlas" and c.part == "id")
    config = config_of(cell, data_dir=None, run_dir=tmp_path)
    assert (cell.decoder, config.model.decoder) == ("fpn", "fpn")
    assert config.optimizer.epochs == 100
    assert config.data.variant == "paper-raw"
    assert config.log.run_dir == tmp_path


def test_models_go_together_and_traps_one_at_a_time(tmp_path):
    """`predict: all` is in the paper's preset already: that trap is no cell of its own."""
    cells = [cell for cell in read(tmp_path, PAPER).cells if cell.part == "ood"]
    assert [(c.family, c.decoder, c.trap) for c in cells] == [
        ("ssl4eo", "unet", ""),
        ("satlas", "unet", ""),
        ("ssl4eo", "unet", "rice"),
        ("satlas", "unet", "rice"),
    ]
    assert {cell.budget for cell in cells} == {0}
    assert [cell.model for cell in cells] == ["", "Satlas below a U-Net"] * 2


def test_a_title_leaves_a_cell_the_same(tmp_path):
    """As an order of its parts does: what is computed keeps its place in the folder."""
    titled = read(tmp_path, PAPER).cells
    untitled = read(tmp_path, PAPER.replace(", title: Satlas below a U-Net", "")).cells
    assert [cell.key for cell in titled] == [cell.key for cell in untitled]


def test_the_first_seed_of_everything_comes_first_and_small_budgets_before_large(tmp_path):
    cells = read(tmp_path, PAPER).cells
    seeds = [cell.seed for cell in cells]
    assert seeds == sorted(seeds)
    first = [cell for cell in cells if cell.seed == 0 and cell.learning_rate == 1e-3]
    budgets = [cell.budget for cell in first if cell.part == "id"]
    assert budgets == sorted(budgets)
    assert {(c.region, c.family) for c in cells[:4]} == {
        (region, family) for region in ("africa", "asia") for family in ("ssl4eo", "satlas")
    }


def test_heads_that_differ_by_seed_and_rate_are_one_piece_of_work(tmp_path):
    text = """
    settings: {method: heads, backbone: satlas, augmentation: none, weights: %s}
    parts:
      all: {region: africa, budget: [4, 8], seed: [0, 1], learning-rate: [0.001, 0.01]}
    """
    settings = textwrap.dedent(text).replace("method: heads, ", "")
    settings = settings.replace("{region", "{method: heads, region")
    sizes = [len(group) for group in read(tmp_path, settings % "some/folder").groups()]
    assert sizes == [4, 4]
    # a seed draws its own random backbone
    assert [len(g) for g in read(tmp_path, settings % "random").groups()] == [2, 2, 2, 2]


def test_a_default_written_out_is_the_same_cell(tmp_path):
    text = """
    settings: {region: africa, backbone: satlas}
    parts:
      one: {budget: 10}
      two: {budget: 10, setting: id, weight-decay: 0.01, device-cache: "off"}
    """
    assert [cell.part for cell in read(tmp_path, text).cells] == ["one"]


def test_a_cell_of_two_parts_is_computed_once(tmp_path):
    text = """
    settings: {region: africa, backbone: satlas}
    parts:
      one: {budget: [10, 100]}
      two: {budget: [100, 900]}
    """
    assert [(c.part, c.budget) for c in read(tmp_path, text).cells] == [
        ("one", 10),
        ("one", 100),
        ("two", 900),
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("parts: [", "cannot be read as YAML"),
        ("title: nothing", "must hold `parts`"),
        ("parts: {a: {region: africa, backbone: satlas}}\nseeds: 3", "no use for seeds"),
        ("parts: {a: {backbone: satlas}}", "part a: region must be given"),
        ("parts: {a: {region: mars, backbone: satlas}}", "part a: region cannot be mars"),
        ("parts: {a: {region: africa, backbone: satlas, budget: ten}}", "budget cannot be ten"),
        ("parts: {a: {region: africa, backbone: satlas, flair: 1}}", "flair is no setting"),
        ("parts: {a: {region: africa, backbone: satlas, method: magic}}", "method must be one of"),
        ("parts: {a: {region: africa, backbone: satlas, steps: 0}}", "--steps must be at least 1"),
        (
            "parts: {a: {region: africa, backbone: satlas, method: heads}}",
            "method heads needs --augmentation views or none",
        ),
        (
            "parts: {a: {region: africa, backbone: satlas, method: heads, tune: full}}",
            "method heads needs --tune frozen",
        ),
        ("parts: {}", "asks for no cell"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, named):
    with pytest.raises(InputError, match=named):
        read(tmp_path, text)
    with pytest.raises(InputError, match=r"absent.yaml cannot be read"):
        read_study(tmp_path / "absent.yaml")
