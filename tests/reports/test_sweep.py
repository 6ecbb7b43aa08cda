import shutil

import numpy as np
import pytest
from made_up_results import made_up_cells, made_up_result, write_made_up_sweep

from jaxcrop.errors import InputError
from jaxcrop.reports.sweep import from_random_weights, read_sweep


def cells(**changes):
    return made_up_cells(("africa",), ("satlas",), (("id", 10),), seeds=1, **changes)


def test_everything_is_read(sweep_folder):
    sweep = read_sweep(sweep_folder)
    assert sweep.title == "label-budget"
    assert len(sweep.results) == 3 * 3 * 6 * 3 + 3 * 3
    assert sweep.synthetic_share == sweep.random_share == 1
    assert set(sweep.examples) == {"africa", "europe", "south-america"}
    chips = sweep.examples["africa"]
    assert chips.rgb.shape == (2, 96, 96, 3)
    assert chips.label.shape == (2, 96, 96)
    failure = sweep.failures[0]
    assert failure.cell.endswith("<again>")
    assert failure.error == "MemoryError: out of memory"
    assert failure.text.startswith("cell: ")


def test_a_sweep_that_has_just_begun(tmp_path):
    folder = write_made_up_sweep(tmp_path / "begun", cells())
    for name in ("failures", "examples"):
        shutil.rmtree(folder / name)
    (folder / "study.yaml").unlink()
    sweep = read_sweep(folder)
    assert (sweep.title, sweep.failures, sweep.examples, sweep.study_text) == ("begun", (), {}, "")


def test_a_study_that_is_no_mapping_is_shown_as_text(tmp_path):
    folder = write_made_up_sweep(tmp_path / "odd", cells())
    (folder / "study.yaml").write_text("a: [")
    sweep = read_sweep(folder)
    assert (sweep.title, sweep.study_text, sweep.study) == ("odd", "a: [", {})


@pytest.mark.parametrize(
    ("settings", "about", "random"),
    [
        ({"weights": "random"}, {}, True),
        ({}, {"weights": {"source": "random"}}, True),
        ({}, {"backbone": {"source": "random"}}, True),
        ({}, {"weights": "published"}, False),
        ({"weights": "runs/others"}, {"weights": {"source": "a hash"}}, False),
        ({}, {}, False),
    ],
)
def test_random_weights_are_recognised(settings, about, random):
    from dataclasses import replace

    result = made_up_result(cells()[0], chips=4)
    result = replace(result, cell=replace(result.cell, settings=settings), about=about)
    assert from_random_weights(result) is random


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(InputError, match="is no folder: give the one"):
        read_sweep(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no result"):
        read_sweep(tmp_path)
    folder = write_made_up_sweep(tmp_path / "study", cells())
    (folder / "examples" / "africa.npz").write_bytes(b"no arrays")
    with pytest.raises(InputError, match=r"africa\.npz holds no example chips: remove it"):
        read_sweep(folder)
    np.savez(folder / "examples" / "africa.npz", rgb=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="holds no example chips"):
        read_sweep(folder)
