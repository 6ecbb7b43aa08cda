import pytest

from jaxcrop.mesh import data_mesh, evaluation_batch_size, one_behind


@pytest.mark.parametrize(
    ("wanted", "chips", "size"),
    [(16, 100, 10), (16, 3, 4), (16, 2001, 16), (8, 66, 6), (1, 5, 2), (3, 4, 4)],
)
def test_few_chips_fill_up_an_evaluation(wanted, chips, size):
    """On the tests' two devices: ten times ten and not seven times sixteen, for a hundred."""
    assert evaluation_batch_size(wanted, chips, data_mesh()) == size


def test_one_behind_begins_the_next_before_it_gives_one():
    told = []

    def begun():
        for number in range(3):
            told.append(f"begin {number}")
            yield number

    for number in one_behind(begun()):
        told.append(f"wait for {number}")
    steps = ["begin 0", "begin 1", "wait for 0", "begin 2", "wait for 1", "wait for 2"]
    assert told == steps
