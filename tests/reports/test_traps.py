import numpy as np
import pytest
from made_up_results import TRAPS

from jaxcrop.reports.traps import trap_effects
from jaxcrop.training.metrics import metrics


def test_a_trap_costs_what_it_was_made_to_cost(study):
    effects = trap_effects(study)
    assert [effect.region for effect in effects] == [None, "africa", "europe", "south-america"]
    pooled = effects[0]
    assert (pooled.trap, pooled.pairs) == ("raw-offset", 3)
    assert pooled.score["overall_accuracy"].high < 0
    # In the other regions the scores lie near their upper limit, where the trap costs less.
    of = effects[1].score["overall_accuracy"]
    assert of.low < -TRAPS["raw-offset"] < of.high < 0


def test_the_difference_is_that_of_the_same_cells(study):
    effect = trap_effects(study)[1]

    def mean(trap):
        return np.mean(
            [
                metrics(result.confusion)["present_f1"]
                for result in study.sweep.results
                if (result.cell.region, result.cell.family) == ("africa", "ssl4eo")
                and (result.cell.setting, result.cell.budget, result.cell.trap) == ("id", 900, trap)
            ]
        )

    assert effect.score["present_f1"].value == pytest.approx(mean("raw-offset") - mean(""))
