from dataclasses import replace

import numpy as np
import pytest
from made_up_results import made_up_cells, made_up_result

from jaxcrop.reports.labels import MORE, labels_worth
from jaxcrop.reports.study import studied
from jaxcrop.reports.sweep import Sweep

A, B, C = 0.05, 0.9, 0.6


@pytest.fixture(scope="module")
def worth(tmp_path_factory):
    """Overall accuracies that lie on a power law, of five budgets and two seeds."""
    scenarios = (*(("id", budget) for budget in (10, 30, 100, 300, 900)), ("ood", 0))
    results = []
    for cell in made_up_cells(("africa",), ("satlas",), scenarios, seeds=2):
        error = A + B * (cell.budget or 10) ** -C + (2 * cell.seed - 1) * 1e-5
        per_chip = np.zeros((4, 6, 6), np.int64)
        per_chip[:, 4, 5] = wrong = round(1e8 * error)
        per_chip[:, 4, 4] = 10**8 - wrong
        results.append(replace(made_up_result(cell, chips=4), per_chip=per_chip))
    folder = tmp_path_factory.mktemp("sweep")
    return labels_worth(studied(Sweep(folder, "", {}, tuple(results), (), {})))


def test_a_power_law_is_found_again(worth):
    (fit,) = [fit for fit in worth.fits if fit.metric == "overall_accuracy"]
    assert (fit.least, fit.most, fit.law.assumed) == (10, 900, "")
    found = (fit.law.asymptote, fit.law.scale, fit.law.exponent)
    assert found == pytest.approx((A, B, C), rel=0.02)
    assert fit.limit.value == pytest.approx(1 - A, abs=1e-3)
    assert fit.limit.low <= fit.limit.value <= fit.limit.high
    more = B * 900**-C - B * (900 + MORE) ** -C
    assert fit.gain.value == pytest.approx(more, rel=0.02)
    assert fit.gain.low < more < fit.gain.high


def test_labels_are_counted_between_budgets(worth):
    """By hand: the score is interpolated over log(1 + labels) between 30 and 100."""
    (need,) = [need for need in worth.needs if need.metric == "overall_accuracy"]
    assert (need.setting, need.region) == ("id", "africa")
    score = {budget: 1 - A - B * budget**-C for budget in (30, 100, 900)}
    target = 0.95 * score[900]
    assert score[30] < target < score[100]
    part = (target - score[30]) / (score[100] - score[30])
    expected = np.expm1(np.log(31) + part * np.log(101 / 31))
    assert need.labels.value == pytest.approx(expected, rel=1e-3)


def test_other_regions_alone_are_a_budget_of_none(study):
    needs = {
        (need.region, need.model, need.setting)
        for need in labels_worth(study).needs
        if need.metric == "present_f1"
    }
    assert needs == {
        (region, model.name, setting)
        for region in study.regions
        for model in study.models
        for setting in ("id", "ood+id")
    }
