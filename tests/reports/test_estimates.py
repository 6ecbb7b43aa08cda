from dataclasses import replace

import numpy as np
import pytest
from made_up_results import made_up_cells, made_up_result

from jaxcrop.reports.estimates import chip_blocks, estimated, matrices
from jaxcrop.reports.groups import grouped
from jaxcrop.training.metrics import metrics


def group_of(results):
    _, (group,) = grouped(results)
    return group


def made_up(seeds=3, chips=40):
    cells = made_up_cells(("asia",), ("satlas",), (("ood", 0),), seeds=seeds)
    return [made_up_result(cell, chips) for cell in cells]


def test_the_value_is_the_mean_over_seeds():
    results = made_up()
    (estimate,) = estimated([group_of(results)])
    for metric in ("overall_accuracy", "average_f1", "present_jaccard", "kappa"):
        each = [metrics(result.per_chip.sum(axis=0))[metric] for result in results]
        assert estimate.seeds[metric] == pytest.approx(each)
        assert estimate.value(metric) == pytest.approx(np.mean(each))
        of = estimate.interval(metric)
        assert of.low < of.value < of.high


def test_one_seed_has_the_standard_error_of_its_blocks():
    """Against the linearised standard error of a ratio over clusters (Cochran 1977, 6.13)."""
    (result,) = made_up(seeds=1, chips=200)
    (estimate,) = estimated([group_of([result])])
    blocks = np.array([chip_blocks([result])[chip] for chip in result.chip_ids])
    right = np.array([np.trace(chip) for chip in result.per_chip], float)
    total = result.per_chip.sum(axis=(1, 2)).astype(float)
    value = right.sum() / total.sum()
    residual = np.bincount(blocks, right - value * total)
    count = len(residual)
    error = np.sqrt(count / (count - 1) * (residual**2).sum()) / total.sum()
    assert estimate.draws["overall_accuracy"].std() == pytest.approx(error, rel=0.12)


def test_groups_of_a_region_are_paired():
    """Two models that differ by a constant: the difference of the draws hardly varies."""
    cells = made_up_cells(("asia",), ("satlas", "imagenet"), (("id", 100),), seeds=1)
    results = [made_up_result(cell, 60) for cell in cells]
    _, groups = grouped(results)
    one, other = (estimate.draws["overall_accuracy"] for estimate in estimated(groups))
    assert (one - other).std() < 0.5 * one.std()


def test_regions_are_drawn_apart():
    """The same chips under the names of two regions: drawn alike, they would correlate fully."""
    (result,) = made_up(seeds=1, chips=60)
    twin = replace(result, cell=replace(result.cell, region="europe"))
    _, groups = grouped([result, twin])
    one, other = (estimate.draws["overall_accuracy"] for estimate in estimated(groups))
    assert one.std() == pytest.approx(other.std(), rel=0.1)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.15


def test_seeds_with_chips_of_their_own():
    first, second = made_up(seeds=2, chips=8)
    half = replace(
        second,
        **{name: getattr(second, name)[4:] for name in ("chip_ids", "per_chip", "lon", "lat")},
    )
    group = group_of([first, half])
    aligned, blocks = matrices(group, chip_blocks([first, half]))
    assert aligned.shape == (2, 8, 6, 6)
    assert len(blocks) == 8
    np.testing.assert_array_equal(aligned.sum(axis=1), group.confusions)
    np.testing.assert_array_equal(aligned[1, 4:], half.per_chip)
    assert not aligned[1, :4].any()


def test_one_block_gives_no_interval():
    (result,) = made_up(seeds=1, chips=5)
    alike = replace(result, lon=np.full(5, 10.0), lat=np.full(5, 50.0))
    (estimate,) = estimated([group_of([alike])])
    of = estimate.interval("overall_accuracy")
    assert np.isfinite(of.value)
    assert np.isnan([of.low, of.high]).all()
    assert np.isnan(estimate.classes["recall"][1:]).all()


def test_intervals_stay_in_range():
    (result,) = made_up(seeds=1, chips=12)
    right = np.zeros_like(result.per_chip)
    right[:, 1, 1] = 100
    (estimate,) = estimated([group_of([replace(result, per_chip=right)])])
    assert estimate.interval("overall_accuracy") == (1, 1, 1)
    assert estimate.classes["recall"][:, 1].tolist() == [1, 1, 1]
