import numpy as np

from jaxcrop.probes.sampling import sample_pixels


def chip(counts: dict[int, int], size: int = 64):
    """A label of so many pixels of each class, in random places; the rest is ignored."""
    label = np.zeros(size * size, np.uint8)
    label[: sum(counts.values())] = np.repeat(list(counts), list(counts.values()))
    return np.random.default_rng(0).permutation(label).reshape(size, size)


def test_classes_have_equal_shares_as_far_as_they_go():
    label = chip({1: 3000, 4: 500, 5: 7})
    found = sample_pixels(label, "a", 47)
    assert np.bincount(found.label, minlength=6).tolist() == [0, 20, 0, 0, 20, 7]
    np.testing.assert_array_equal(label.ravel()[found.place], found.label)
    assert len(set(found.place)) == 47


def test_weights_count_all_labelled_pixels():
    label = chip({1: 3000, 4: 500, 5: 7})
    found = sample_pixels(label, "a", 47)
    sums = np.bincount(found.label, found.weight, minlength=6)
    np.testing.assert_allclose(sums, [0, 3000, 0, 0, 500, 7], rtol=1e-6)


def test_a_chip_with_too_few_pixels_is_filled_up_with_pixels_that_weigh_nothing():
    found = sample_pixels(chip({2: 3}), "a", 5)
    assert found.label.tolist() == [2, 2, 2, 0, 0]
    assert found.weight.tolist() == [1, 1, 1, 0, 0]
    assert not sample_pixels(chip({}), "a", 5).weight.any()


def test_the_draw_is_of_the_name_and_fewer_pixels_are_among_more():
    label = chip({1: 3000, 4: 500})
    few, many, again, other = (
        sample_pixels(label, name, n).place
        for name, n in (("a", 20), ("a", 90), ("a", 20), ("b", 20))
    )
    np.testing.assert_array_equal(few, many[:20])
    np.testing.assert_array_equal(few, again)
    assert set(few) != set(other)


def test_every_pixel_of_a_class_is_as_likely_as_another():
    label = np.ones((4, 4), np.uint8)
    drawn = [sample_pixels(label, str(n), 4).place for n in range(2000)]
    counts = np.bincount(np.concatenate(drawn), minlength=16)
    assert abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)
