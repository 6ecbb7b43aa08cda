import numpy as np
import pytest
from made_up_results import SKILL

from jaxcrop.reports.families import compare, mean_draws
from jaxcrop.statistics.comparisons import p_value_of_zero


@pytest.fixture(scope="module")
def comparison(study):
    return compare(study)


def test_differences_are_means_over_regions(study, comparison):
    assert comparison.lineup == ("SSL4EO-S12", "SatlasPretrain", "ImageNet")
    metrics = {pair.metric for pair in comparison.pairs}
    assert len(comparison.pairs) == len(metrics) * 3 * 6
    for pair in comparison.pairs[:: len(comparison.pairs) // 7]:
        each = [
            np.subtract(
                *(
                    study.at(region, model, pair.scenario).value(pair.metric)
                    for model in (pair.first, pair.second)
                )
            )
            for region in study.regions
        ]
        assert list(pair.regions.values()) == pytest.approx(each)
        assert pair.difference.value == pytest.approx(np.mean(each))
        assert pair.difference.low < pair.difference.value < pair.difference.high


def test_families_that_differ_are_told_apart(comparison):
    """ImageNet was made 9 points worse than SSL4EO-S12; at 100 labels nothing limits scores."""
    (pair,) = [
        pair
        for pair in comparison.pairs
        if (pair.metric, pair.scenario) == ("overall_accuracy", ("id", 100))
        and (pair.first, pair.second) == ("SSL4EO-S12", "ImageNet")
    ]
    made = SKILL["ssl4eo"] - SKILL["imagenet"]
    assert pair.difference.low < made < pair.difference.high
    assert pair.p_value < 0.05


def test_p_values_are_corrected_over_pairs_and_scenarios(study, comparison):
    """Against Holm's definition: the k-th smallest of m is multiplied by m - k + 1, in order."""
    of_metric = [pair for pair in comparison.pairs if pair.metric == "present_f1"]
    raw = []
    for pair in of_metric:
        draws = [
            study.at(region, pair.first, pair.scenario).draws["present_f1"]
            - study.at(region, pair.second, pair.scenario).draws["present_f1"]
            for region in study.regions
        ]
        raw.append(p_value_of_zero(mean_draws(draws)))
    order = np.argsort(raw)
    least = 0.0
    for place, number in enumerate(order):
        least = max(least, min(1.0, (len(raw) - place) * raw[number]))
        assert of_metric[number].p_value == pytest.approx(least)


def test_draws_of_the_mean_over_independent_regions():
    random = np.random.default_rng(0)
    regions = [random.normal(place, 1, 1000) for place in (1.0, 2.0, 6.0)]
    drawn = mean_draws(regions)
    assert drawn.mean() == pytest.approx(3, abs=0.05)
    assert drawn.std() == pytest.approx(1 / np.sqrt(3), rel=0.05)
    assert mean_draws(regions[:1]) is regions[0]


def test_ranks_are_over_regions_and_draws(study, comparison):
    (rank,) = [
        rank
        for rank in comparison.ranks
        if (rank.metric, rank.scenario) == ("overall_accuracy", ("ood+id", 100))
    ]
    draws = np.concatenate(
        [
            np.stack(
                [
                    study.at(region, model, rank.scenario).draws["overall_accuracy"]
                    for model in comparison.lineup
                ]
            ).T
            for region in study.regions
        ]
    )
    first = np.bincount(draws.argmax(axis=1), minlength=3) / len(draws)
    assert list(rank.stability.first) == pytest.approx(first.tolist())
    assert rank.stability.first[0] > 0.6
    assert list(rank.over_regions.mean_ranks) == [1, 2, 3]
    assert rank.agreement == 1


def test_nothing_is_compared_where_a_family_lacks_a_region(study):
    from dataclasses import replace

    kept = [
        (group, estimate)
        for group, estimate in zip(study.groups, study.estimates, strict=True)
        if (group.model, group.region, group.scenario) != ("ImageNet", "africa", ("id", 100))
    ]
    groups, estimates = zip(*kept, strict=True)
    partial = compare(replace(study, groups=groups, estimates=estimates))
    pairs = {(pair.first, pair.second) for pair in partial.pairs if pair.scenario == ("id", 100)}
    assert pairs == {("SSL4EO-S12", "SatlasPretrain")}
    assert ("id", 100) not in {rank.scenario for rank in partial.ranks}
