import math
import subprocess
import sys

import numpy as np
import pytest
from oracles import torchvision

from jaxcrop.training.metrics import confusion_matrix, metrics

K = 6
NAMES = ("accuracy", "f1", "precision", "recall", "jaccard")


@pytest.fixture(scope="module")
def torch_metrics():
    """The paper's collection: torchmetrics, micro and macro, on (label, prediction)."""
    torch = pytest.importorskip("torch")
    torchvision()
    classification = pytest.importorskip("torchmetrics.classification")
    metric = {
        "accuracy": classification.MulticlassAccuracy,
        "f1": classification.MulticlassF1Score,
        "precision": classification.MulticlassPrecision,
        "recall": classification.MulticlassRecall,
        "jaccard": classification.MulticlassJaccardIndex,
    }

    def compute(label, prediction):
        label, prediction = torch.from_numpy(label).long(), torch.from_numpy(prediction).long()
        return {
            f"{prefix}_{name}": metric[name](K, average=average, ignore_index=0)(
                prediction, label
            ).item()
            for name in NAMES
            for prefix, average in (("overall", "micro"), ("average", "macro"))
        }

    return compute


def count(label, prediction):
    """Confusion matrix of one chip, pixel by pixel."""
    confusion = np.zeros((K, K), np.int64)
    for truth, guess in zip(label.ravel(), prediction.ravel(), strict=True):
        confusion[truth, guess] += truth != 0
    return confusion


def chip(seed, label_classes, predicted_classes, agreement=0.5):
    rng = np.random.default_rng(seed)
    label = rng.choice(label_classes, (24, 24))
    prediction = rng.choice(predicted_classes, (24, 24))
    agree = (rng.random((24, 24)) < agreement) & np.isin(label, predicted_classes)
    return label, np.where(agree, label, prediction)


CHIPS = {
    **{f"all-classes-{seed}": chip(seed, range(6), range(1, 6)) for seed in range(20)},
    **{f"predicts-0-{seed}": chip(seed, range(6), range(6)) for seed in range(10)},
    **{f"two-classes-{seed}": chip(seed, (0, 2, 5), (2, 5)) for seed in range(5)},
    **{f"stray-{seed}": chip(seed, (0, 2, 5), (0, 1, 2, 3, 5), 0.97) for seed in range(5)},
    "one-class": chip(0, (3,), (3,)),
    "one-class-never-met": chip(0, (3,), (1, 4), 0),
    "perfect": chip(0, range(6), range(6), 1.0),
    "all-wrong": (np.full((4, 4), 1), np.full((4, 4), 2)),
    "only-0-predicted": chip(0, range(6), (0,), 0),
    "label-never-predicted": chip(0, (1, 2, 3), (1, 2)),
}


@pytest.mark.parametrize("case", CHIPS)
def test_equal_to_torchmetrics(case, torch_metrics):
    label, prediction = CHIPS[case]
    ours = metrics(count(label, prediction))
    theirs = torch_metrics(label, prediction)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-6)


def test_present_classes_do_not_depend_on_stray_predictions():
    # peers.md 0.1: two classes at 85% each, then one stray pixel in each of three absent classes.
    confusion = np.zeros((K, K), np.int64)
    confusion[2, 2], confusion[2, 5], confusion[5, 5], confusion[5, 2] = 8500, 1500, 8500, 1500
    clean = metrics(confusion)
    confusion[2, [0, 1, 3]], confusion[2, 5] = 1, 1497
    stray = metrics(confusion)
    assert clean["average_accuracy"] == clean["present_accuracy"] == pytest.approx(0.85)
    assert stray["average_accuracy"] == pytest.approx(0.85 * 2 / 5)
    assert stray["average_jaccard"] == pytest.approx(clean["average_jaccard"] * 2 / 4, rel=1e-3)
    for name in NAMES:
        assert stray[f"present_{name}"] == pytest.approx(clean[f"present_{name}"], rel=1e-3)


def test_present_by_hand():
    confusion = np.zeros((K, K), np.int64)
    confusion[1, [1, 2, 4]] = 6, 2, 2
    confusion[2, [1, 2]] = 1, 4
    values = metrics(confusion)
    assert values["present_recall"] == values["present_accuracy"] == pytest.approx((0.6 + 0.8) / 2)
    assert values["present_precision"] == pytest.approx((6 / 7 + 4 / 6) / 2)
    assert values["present_f1"] == pytest.approx((12 / 17 + 8 / 11) / 2)
    assert values["present_jaccard"] == pytest.approx((6 / 11 + 4 / 7) / 2)


def test_no_valid_pixel_is_not_a_number():
    values = metrics(np.zeros((K, K), np.int64))
    assert len(values) == 16
    assert all(math.isnan(value) for value in values.values())


def test_counts_beyond_float32():
    confusion = np.zeros((K, K), np.int64)
    confusion[1, 1], confusion[1, 2] = 2**40, 1
    assert metrics(confusion)["overall_accuracy"] == 2**40 / (2**40 + 1) < 1


def test_a_stack_of_matrices_has_the_values_of_each():
    matrices = np.stack([count(*of_chip) for of_chip in CHIPS.values()])
    matrices[3] = 0
    stacked = metrics(matrices.reshape(2, -1, K, K))
    for place, matrix in zip(np.ndindex(2, len(CHIPS) // 2), matrices, strict=True):
        for name, value in metrics(matrix).items():
            np.testing.assert_array_equal(stacked[name][place], value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize("compiled", [True, False])
def test_confusion_matrix_counts_pixels(dtype, compiled):
    jax = pytest.importorskip("jax")
    label, prediction = np.stack([chip(seed, range(6), range(6)) for seed in range(3)], axis=1)
    function = jax.jit(confusion_matrix, static_argnums=2) if compiled else confusion_matrix
    confusion = np.asarray(function(label.astype(dtype), prediction.astype(np.int32), K))
    assert confusion.dtype == np.int32
    np.testing.assert_array_equal(confusion, list(map(count, label, prediction)))


def test_values_outside_the_classes_are_not_counted():
    label = np.array([[[1, 255, 2, 6]]], np.uint8)
    prediction = np.array([[[1, 1, 7, 1]]], np.uint8)
    confusion = np.asarray(confusion_matrix(label, prediction, K))
    assert confusion.sum() == confusion[0, 1, 1] == 1


def test_metrics_work_without_jax():
    code = (
        "import sys; sys.modules['jax'] = None; import numpy as np;"
        "from jaxcrop.training.metrics import metrics; print(metrics(np.eye(6))['overall_f1'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1.0\n"
