from itertools import chain

import numpy as np
import pytest

from jaxcrop.data.sampling import Sampling


def _batches(sampling, steps):
    return [sampling.batch(step).tolist() for step in range(steps)]


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_every_pass_sees_every_chip_once_in_an_order_of_its_own(size):
    sampling = Sampling(10, size, seed=0)
    batches = _batches(sampling, 60)
    assert {len(batch) for batch in batches} == {size}
    seen = list(chain(*batches))[:60]
    passes = [seen[start : start + 10] for start in range(0, len(seen) // 10 * 10, 10)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len({tuple(one) for one in passes}) == len(passes)
    assert _batches(Sampling(10, size, seed=1), 60) != batches


def test_replacement_draws_a_pass_as_torchgeo_does():
    """datasets_spec 8.3: 810 chips in batches of 128 are 7 steps, the last of 42 chips."""
    sampling = Sampling(810, 128, seed=0, how="replacement")
    assert sampling.steps(100) == 700
    assert [len(batch) for batch in _batches(sampling, 8)] == [128] * 6 + [42, 128]
    assert [sampling.size(step) for step in range(8)] == [128] * 6 + [42, 128]
    drawn = np.bincount(list(chain(*_batches(sampling, 7))), minlength=810)
    # Of n draws among n, a share of 1/e is never drawn.
    assert abs((drawn == 0).mean() - np.exp(-1)) < 0.05
    assert Sampling(3600, 128, seed=0, how="replacement").steps(50) == 1450
    assert Sampling(4410, 128, seed=0, how="replacement").steps(50) == 1750
    assert Sampling(9, 9, seed=0, how="replacement").steps(100) == 100


def test_passes_are_counted_in_steps_and_validated():
    sampling = Sampling(10, 4, seed=0)
    assert sampling.steps(2) == 5
    assert [sampling.validation_after(step, None) for step in range(5)] == [3, 3, 3, 5, 5]
    assert [sampling.validation_after(step, 3) for step in range(4)] == [3, 3, 3, 6]
    replacement = Sampling(810, 128, seed=0, how="replacement")
    assert [replacement.validation_after(step, None) for step in (0, 6, 7)] == [7, 7, 14]


def test_steps_alike_follow_each_other():
    """Of 10 chips drawn with replacement, every third batch of 4 holds 2."""
    left = Sampling(10, 4, seed=0, how="replacement")
    assert list(left.alike(range(1, 7), 3)) == [[1], [2], [3, 4], [5], [6]]
    assert list(left.alike(range(1, 5), 1)) == [[1], [2], [3], [4]]
    assert list(Sampling(10, 4, seed=0).alike(range(3, 10), 3)) == [[3, 4, 5], [6, 7, 8], [9]]


@pytest.mark.parametrize("how", ["shuffled", "replacement"])
@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_so_many_passes_are_validated_as_often(how, size):
    sampling, step, validated = Sampling(10, size, seed=0, how=how), 0, []
    while step < sampling.steps(6):
        step = sampling.validation_after(step, None)
        validated.append(step)
    assert validated == [sampling.steps(passes) for passes in range(1, 7)]
