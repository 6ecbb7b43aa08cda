"""Linear classifiers beside scikit-learn's and PyTorch's, and many at once beside one at a time."""

import numpy as np
import pytest

from jaxcrop.data.sampling import Sampling
from jaxcrop.probes.classifiers import fit_logistic, moments, train_heads


def made_up(rows=300, features=20, seed=0):
    """Features of very different scales, none centred, and six classes that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features)) * rng.lognormal(size=features)
    x = (x + 10 * rng.normal(size=features)).astype(np.float32)
    scaled = (x - x.mean(0)) / x.std(0)
    scores = 0.7 * scaled @ rng.normal(size=(features, 6)) + rng.gumbel(size=(rows, 6))
    return x, scores.argmax(1)


def problems(label):
    """Weights of three problems: all rows, half of them, and half of them without class 2."""
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.1, 3, (3, len(label))).astype(np.float32)
    weight[1:] *= rng.random((2, len(label))) < 0.5
    weight[2, label == 2] = 0
    return weight, np.array([1e-1, 1e-2, 3e-3])


@pytest.mark.parametrize("features", [20, 400])
def test_logistic_regression_is_that_of_scikit_learn(features):
    linear_model = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x, label = made_up(features=features)
    weight, l2 = problems(label)
    found = fit_logistic(x, label, weight, l2, tolerance=1e-6, iterations=2000)
    for p in range(len(l2)):
        shown = weight[p] > 0
        scaler = preprocessing.StandardScaler().fit(x[shown], sample_weight=weight[p, shown])
        want = linear_model.LogisticRegression(
            C=1 / (l2[p] * weight[p].sum()), tol=1e-8, max_iter=10_000
        ).fit(scaler.transform(x[shown]), label[shown], sample_weight=weight[p, shown])
        kernel = np.asarray(found.kernel[p]).T[want.classes_] * scaler.scale_
        np.testing.assert_allclose(kernel, want.coef_, atol=1e-3 * np.abs(want.coef_).max())
        chance = np.asarray(x @ found.kernel[p] + found.bias[p])
        first, second = np.sort(want.predict_proba(scaler.transform(x)), 1)[:, :-3:-1].T
        sure = first - second > 0.01  # both have converged to within so much
        theirs = want.predict(scaler.transform(x))
        np.testing.assert_array_equal(chance.argmax(1)[sure], theirs[sure])
        assert sure.mean() > 0.95
        unknown = np.setdiff1d(np.arange(6), want.classes_)
        assert np.isneginf(found.bias[p, unknown]).all()
        assert unknown.tolist() == ([2] if p == 2 else [])
        np.testing.assert_array_equal(found.predict(x)[p], chance.argmax(1))


def test_two_classes_are_those_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, label = made_up()
    x = (x - x.mean(0)) / x.std(0)
    label = np.where(label > 2, 4, 1)
    found = fit_logistic(x, label, np.ones((1, len(x))), [0.01], tolerance=1e-6)
    # One vector w in place of w/2 and -w/2: the same penalty is half as strong.
    want = linear_model.LogisticRegression(C=2 / (0.01 * len(x)), tol=1e-8, max_iter=10_000)
    want.fit(x, label)
    difference = found.kernel[0, :, 4] - found.kernel[0, :, 1]
    np.testing.assert_allclose(difference, want.coef_[0], atol=1e-3 * np.abs(want.coef_).max())


def test_many_logistic_regressions_are_one_at_a_time():
    x, label = made_up(features=60)
    weight, l2 = problems(label)
    together = fit_logistic(x, label, weight, l2, tolerance=1e-5)
    for p in range(len(l2)):
        alone = fit_logistic(x, label, weight[p : p + 1], l2[p : p + 1], tolerance=1e-5)
        atol = 2e-3 * np.abs(alone.kernel).max()
        np.testing.assert_allclose(together.kernel[p], alone.kernel[0], atol=atol)
        shown = weight[p] > 0  # those that weigh nothing need not be there at all
        without = fit_logistic(
            x[shown], label[shown], weight[p : p + 1, shown], l2[p : p + 1], tolerance=1e-5
        )
        np.testing.assert_allclose(together.kernel[p], without.kernel[0], atol=atol)


def test_separable_classes_converge_too():
    x, label = made_up(rows=40, features=200)
    found = fit_logistic(x, label, np.ones((3, 40)), [1e-8, 1e-4, 1e2])
    assert np.isfinite(found.kernel).all()
    predicted = found.predict(x)
    assert (predicted[:2] == label).all()
    assert (predicted[2] == np.bincount(label).argmax()).all()


def test_moments_are_those_of_scikit_learn():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x, label = made_up()
    x[:, 3] = 7  # a feature that does not vary
    weight, _ = problems(label)
    found = moments(x, weight)
    for p in range(3):
        want = preprocessing.StandardScaler().fit(x.astype(float), sample_weight=weight[p])
        np.testing.assert_allclose(found.mean[p], want.mean_, rtol=1e-4)
        np.testing.assert_allclose(found.scale[p], want.scale_, rtol=2e-3)


def chips(count=12, pixels=9, features=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, pixels, features)) * rng.lognormal(size=features) + 3
    label = rng.integers(1, 5, (count, pixels)).astype(np.uint8)
    weight = rng.uniform(0.1, 4, (count, pixels)).astype(np.float32)
    weight[0, 4:], label[0, 4:] = 0, 0
    return x.astype(np.float32), label, weight


MEMBERS = ([0, 2, 3, 4, 5, 7], [11, 10, 9, 8, 1, 0], [0, 1, 2, 3, 5, 8])
RATES, SEEDS = (1e-2, 3e-3, 1e-1), (4, 4, 9)


def test_heads_are_trained_as_pytorch_trains_them():
    torch = pytest.importorskip("torch")
    x, label, weight = chips()
    found = train_heads(
        x, label, weight, MEMBERS, learning_rate=RATES, seeds=SEEDS, steps=15, batch_size=4
    )
    for h, members in enumerate(MEMBERS):
        rows, share = x[members].reshape(-1, 5).astype(float), weight[members].ravel()
        mean = np.average(rows, axis=0, weights=share)
        scale = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=share))
        known = sorted(set(label[members][weight[members] > 0].tolist()))
        head = torch.nn.Linear(5, 6).double()
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        optimizer = torch.optim.AdamW(head.parameters(), lr=RATES[h], weight_decay=0.01)
        unknown = torch.tensor([c not in known for c in range(6)])
        sampling = Sampling(len(members), 4, SEEDS[h])
        for step in range(15):
            batch = np.array(members)[sampling.batch(step)]
            logits = head(torch.from_numpy((x[batch].reshape(-1, 5) - mean) / scale))
            each = torch.nn.functional.cross_entropy(
                logits.masked_fill(unknown, -torch.inf),
                torch.from_numpy(np.where(label[batch] == 0, known[0], label[batch]))
                .long()
                .ravel(),
                reduction="none",
            )
            w = torch.from_numpy(weight[batch].ravel()).double()
            optimizer.zero_grad()
            ((each * w).sum() / w.sum()).backward()
            optimizer.step()
        kernel = head.weight.detach().numpy().T / scale[:, None]
        kernel[:, unknown] = 0  # AdamW's decay alone moves these, from zero
        atol = 1e-4 * np.abs(kernel).max()
        np.testing.assert_allclose(found.kernel[h], kernel, atol=atol)
        bias = head.bias.detach().numpy() - mean @ kernel
        np.testing.assert_allclose(found.bias[h, known], bias[known], atol=1e-3)
        assert np.isneginf(found.bias[h, unknown.numpy()]).all()


def test_many_heads_are_one_at_a_time():
    data = chips()
    together = train_heads(*data, MEMBERS, learning_rate=RATES, seeds=SEEDS, steps=20)
    for h, members in enumerate(MEMBERS):
        alone = train_heads(
            *data, [members], learning_rate=RATES[h : h + 1], seeds=SEEDS[h : h + 1], steps=20
        )
        atol = 1e-5 * np.abs(alone.kernel).max()
        np.testing.assert_allclose(together.kernel[h], alone.kernel[0], atol=atol)


def test_heads_of_few_chips_see_the_same_steps():
    data = chips()
    found = train_heads(
        *data, ([3], [1, 2, 5, 7]), learning_rate=(1e-2, 1e-2), seeds=(0, 0), steps=3, batch_size=2
    )
    assert np.isfinite(found.kernel).all()
    assert (np.abs(found.kernel).max((1, 2)) > 0).all()
