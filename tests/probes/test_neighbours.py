import numpy as np
import pytest

from jaxcrop.probes.neighbours import nearest_neighbours


def made_up(rows=400, queries=700, features=12):
    rng = np.random.default_rng(0)
    x, q = (rng.normal(size=(n, features)).astype(np.float32) for n in (rows, queries))
    label = (x @ rng.normal(size=(features, 6)) + rng.gumbel(size=(rows, 6))).argmax(1)
    return x, label, q


@pytest.mark.parametrize("temperature", [None, 0.2])
def test_neighbours_are_those_of_scikit_learn(temperature):
    neighbors = pytest.importorskip("sklearn.neighbors")
    x, label, queries = made_up()
    known = np.random.default_rng(1).random((3, len(x))) < [[0.1], [0.5], [1.0]]
    ks = (1, 5, 20)
    found = nearest_neighbours(
        x, label, known.astype(np.float32), queries, ks, temperature=temperature
    )
    assert found.shape == (3, 3, len(queries))

    def votes(distance):
        return np.exp(-distance / temperature)  # cosine distance: exp(cosine / T) but for a factor

    for p in range(3):
        for k, count in enumerate(ks):
            theirs = neighbors.KNeighborsClassifier(
                count, metric="cosine", weights="uniform" if temperature is None else votes
            ).fit(x[known[p]], label[known[p]])
            want = theirs.predict(queries)
            # Rounding may order two neighbours otherwise; it must not matter but now and then.
            assert (found[p, k] == want).mean() > 0.997


def test_a_row_votes_with_its_weight():
    x = np.array([[1, 0], [1, 0.1], [1, 0.2]], np.float32)
    label = np.array([1, 2, 2])
    weight = np.array([[1, 1, 1], [3, 1, 1], [1, 0, 1]], np.float32)
    query = np.array([[1, 0]], np.float32)
    found = nearest_neighbours(x, label, weight, query, (1, 3), temperature=None)
    assert found[:, :, 0].tolist() == [[1, 2], [1, 1], [1, 1]]
    # Near ones count for more: exp((0.9806 - 1) / 0.01) is 0.14.
    nearer = nearest_neighbours(x, label, weight[:1], query, (3,), temperature=0.01)
    assert nearer[0, 0, 0] == 1


def test_fewer_rows_than_neighbours():
    x, label, queries = made_up(rows=4, queries=3)
    found = nearest_neighbours(x, label, np.ones((1, 4)), queries, (2, 50))
    assert found.shape == (1, 2, 3)
    alone = nearest_neighbours(x, label, [[0, 0, 1, 0]], queries, (50,))
    assert (alone == label[2]).all()
