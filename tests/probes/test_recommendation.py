"""Ranking and advice from confusion matrices whose truth is known."""

import json

import numpy as np
import pytest

from jaxcrop.probes.recommendation import as_json, judge
from jaxcrop.probes.study import estimated_confusions
from jaxcrop.probes.wording import text
from jaxcrop.training.metrics import metrics

BUDGETS = (5, 10, 20, 50, 100)
CHIPS, SEEDS, PIXELS = 60, 5, 1000


def matrices(error, seed, chips=CHIPS, seeds=SEEDS):
    """Confusion matrices of two classes whose chance of an error is error(budget), and varies."""
    rng = np.random.default_rng(seed)
    found = np.zeros((len(BUDGETS), seeds, chips, 6, 6), np.int64)
    for b, budget in enumerate(BUDGETS):
        wrong = error(budget) * rng.lognormal(sigma=0.02, size=(seeds, 1)) * np.ones((seeds, chips))
        misses = rng.binomial(PIXELS // 2, wrong)
        false = rng.binomial(PIXELS // 2, wrong)
        found[b, :, :, 1, 1], found[b, :, :, 1, 5] = PIXELS // 2 - misses, misses
        found[b, :, :, 5, 5], found[b, :, :, 5, 1] = PIXELS // 2 - false, false
    return found


def places(chips=CHIPS, apart=1.0):
    return np.arange(chips) * apart, np.zeros(chips)


@pytest.fixture(scope="module")
def found():
    per_chip = {
        "raw bands": matrices(lambda n: 0.3, 1),
        "good": matrices(lambda n: 0.05 + 0.4 * n**-0.5, 2),
        "twin": matrices(lambda n: 0.05 + 0.4 * n**-0.5, 3),
        "poor": matrices(lambda n: 0.2 + 0.4 * n**-0.5, 4),
    }
    kinds = dict.fromkeys(per_chip, "published") | {"raw bands": "none"}
    return judge(per_chip, kinds, budgets=BUDGETS, places=places(), pool=1000)


def test_candidates_stand_in_the_order_of_their_scores(found):
    assert {one.name for one in found.standings[:2]} == {"good", "twin"}
    assert [one.name for one in found.standings[2:]] == ["poor", "raw bands"]
    assert [one.tied for one in found.standings] == [True, True, False, False]
    chances = [one.first for one in found.standings]
    assert sum(chances) == pytest.approx(1)
    assert chances[2] < 1e-3
    assert found.standings[0].behind is None
    assert found.standings[2].behind.value == pytest.approx(0.15, abs=0.01)
    for one, error in zip(found.standings, (0.09, 0.09, 0.24, 0.3), strict=True):
        for score in one.scores.values():
            assert score.low < 1 - error < score.high
            assert score.high - score.low < 0.03
    assert found.warnings == []


def test_the_gain_is_that_of_the_law_that_made_the_errors(found):
    true = 0.4 * (100**-0.5 - 200**-0.5)
    assert found.gain.low < true < found.gain.high
    assert found.gain.value == pytest.approx(true, abs=0.006)
    target = 0.05 + 0.4 * 400**-0.5  # the error with 400 labels
    needed = found.law.labels_for(target)
    assert needed.low < 400 < needed.high


def test_the_text_says_what_follows(found):
    said = text(found, target=0.93)
    assert f"{found.standings[0].name} leads." in said
    assert f"tied with it: {found.standings[1].name}. Choose" in said
    assert "100 more labelled chips beyond 100 would bring" in said
    assert "93.0% OA would take about" in said
    assert "Beware" not in said
    assert "more than its learning curve promises" in text(found, target=0.9999)


def test_a_clear_winner_and_a_floor_that_is_not_beaten():
    kinds = {"raw bands": "none", "a": "published", "b": "published"}
    good, bad = (lambda n: 0.1), (lambda n: 0.4)

    def said(*errors):
        per_chip = {
            n: matrices(e, 7 + k) for k, (n, e) in enumerate(zip(kinds, errors, strict=True))
        }
        return text(judge(per_chip, kinds, budgets=BUDGETS, places=places(), pool=1000))

    assert "Use a: it is better than every other" in said(bad, good, bad)
    assert "No weights are better here than a pixel's bands alone." in said(good, bad, bad)
    assert "not surely better than a pixel's bands" in said(good, lambda n: 0.0985, bad)


def test_what_makes_an_answer_unsure_is_said():
    def warnings(
        *, chips=CHIPS, seeds=SEEDS, pool=1000, kind="published", apart=1.0, budgets=BUDGETS
    ):
        per_chip = {
            name: matrices(lambda n: 0.2, k, chips, seeds)[: len(budgets)]
            for k, name in enumerate(("raw bands", "a"))
        }
        kinds = {"raw bands": "none", "a": kind}
        where = places(chips, apart)
        found = judge(per_chip, kinds, budgets=budgets, places=where, pool=pool, draws=200)
        json.dumps(as_json(found), allow_nan=False)
        return " ".join(found.warnings)

    assert warnings() == ""
    assert "lie in one block" in warnings(apart=0.0)
    assert "lie in 4 blocks" in warnings(chips=4)
    assert "--seeds 1 cannot tell" in warnings(seeds=1)
    assert "100 of 150 training chips" in warnings(pool=150)
    assert "never trained" in warnings(kind="random")
    assert "2 budgets cannot tell" in warnings(budgets=BUDGETS[:2])
    assert "never" not in warnings(budgets=BUDGETS[:1])


def test_sampled_pixels_estimate_the_confusion_of_all():
    rng = np.random.default_rng(0)
    label = np.array([[1] * 30 + [4] * 20 + [0] * 14])
    weight = np.array([[100.0] * 30 + [3.0] * 20 + [0.0] * 14])
    guess = rng.choice([1, 4, 5], (3, 2, 1, 64))
    found = estimated_confusions(label, weight, guess)
    assert found.shape == (3, 2, 1, 6, 6)
    assert (found.sum(-1) == [0, 3000, 0, 0, 60, 0]).all()
    one = found[1, 0, 0]
    assert one[1, 4] == 100 * (guess[1, 0, 0, :30] == 4).sum()
    right = 100 * (guess[1, 0, 0, :30] == 1).sum() + 3 * (guess[1, 0, 0, 30:50] == 4).sum()
    assert metrics(one)["overall_accuracy"] == pytest.approx(right / 3060)
