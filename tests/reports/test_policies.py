from dataclasses import replace

import numpy as np
import pytest
from made_up_results import made_up_cells, made_up_result, write_made_up_sweep

from jaxcrop.reports.groups import grouped
from jaxcrop.reports.policies import claims, classes_counted, effects
from jaxcrop.reports.study import studied


@pytest.fixture
def stray_study(tmp_path):
    """South America with recalls of 80 % at 100 labels and of 85 % at 900, as peers.md 0.1 has it.

    At 100 labels, and with other regions' data, one pixel of each of three absent classes is
    predicted.
    """
    from jaxcrop.reports.sweep import Sweep

    results = []
    for cell in made_up_cells(
        ("south-america",), ("ssl4eo",), (("id", 100), ("id", 900), ("ood+id", 900)), seeds=1
    ):
        confusion = np.zeros((6, 6), np.int64)
        right = 8000 if cell.budget == 100 else 8500
        confusion[2, [2, 5]] = right, 10_000 - right
        confusion[5, [5, 2]] = right, 10_000 - right
        if (cell.setting, cell.budget) != ("id", 900):
            confusion[2, [1, 3, 4]] += 1
            confusion[2, 5] -= 3
        result = made_up_result(cell, chips=8)
        per_chip = np.repeat(confusion[None], 8, axis=0)
        results.append(replace(result, per_chip=per_chip))
    return studied(Sweep(tmp_path, "", {}, tuple(results), (), {}))


def test_the_denominator_is_told_from_the_classes(stray_study):
    first, second = effects(stray_study)
    assert (first.region, first.claim.first, first.claim.then) == (
        "south-america",
        ("id", 100),
        ("id", 900),
    )
    value = {metric: of.value for metric, of in first.score.items()}
    # 0.85 over two classes, minus 1.6 over five: 2 present and 3 stray.
    assert value["average_accuracy"] == pytest.approx(0.85 - 1.6 / 5)
    assert value["present_accuracy"] == pytest.approx(0.05)
    assert value["overall_accuracy"] == pytest.approx(0.05)
    assert first.denominator == pytest.approx(1 - 0.05 / 0.53)
    assert first.paper["average_accuracy"] == pytest.approx(0.8368 - 0.2604)

    assert second.claim.then == ("ood+id", 900)
    assert second.score["average_accuracy"].value == pytest.approx(1.7 / 5 - 0.85)
    assert second.score["present_accuracy"].value == pytest.approx(0)
    assert second.denominator == pytest.approx(1)
    assert second.paper["average_accuracy"] == pytest.approx(0.4273 - 0.8368)


def test_classes_are_counted(stray_study):
    counted = {group.scenario: classes_counted(group) for group in stray_study.groups}
    assert counted == {("id", 100): (5, 2), ("id", 900): (2, 2), ("ood+id", 900): (5, 2)}


def test_the_mean_over_regions(study):
    found = effects(study)
    pooled = [of for of in found if of.region is None and of.model == "SatlasPretrain"]
    assert len(pooled) == 2
    for mean in pooled:
        each = [
            of.score["overall_accuracy"].value
            for of in found
            if of.region and (of.model, of.claim) == (mean.model, mean.claim)
        ]
        assert mean.score["overall_accuracy"].value == pytest.approx(np.mean(each))
        assert not mean.paper  # whose figures are of another family
    ours = next(of for of in found if of.region is None and of.model == "SSL4EO-S12")
    assert ours.paper["average_accuracy"] == pytest.approx(
        np.mean([0.2686 - 0.1687, 0.3369 - 0.2956, 0.8368 - 0.2604])
    )


def test_a_study_of_one_budget_has_no_claim(tmp_path):
    from jaxcrop.reports.sweep import read_sweep

    cells = made_up_cells(("africa",), ("satlas",), (("id", 10),), seeds=1)
    study = studied(read_sweep(write_made_up_sweep(tmp_path / "study", cells, chips=4)))
    assert claims(study) == effects(study) == []
    assert grouped(study.sweep.results)[1] == list(study.groups)
