import json

import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

from jaxcrop.errors import InputError
from jaxcrop.training.curves import learning_curves


def _write(folder, steps=400, every=40):
    rng = np.random.default_rng(0)
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            loss = 1.6 * np.exp(-step / 90) + 0.2 + rng.normal(0, 0.08)
            file.write(json.dumps({"step": step, "train/loss": loss}) + "\n")
            if step % every == 0:
                values = {
                    "validation/loss": 0.4 + (step - 240) ** 2 / 1e5,
                    "validation/overall_accuracy": 0.9 - np.exp(-step / 80),
                    "validation/present_accuracy": 0.8 - np.exp(-step / 80),
                }
                file.write(json.dumps({"step": step, **values}) + "\n")
                rate = 1e-3 if step < 300 else 1e-4
                file.write(json.dumps({"step": step, "train/learning_rate": rate}) + "\n")


def test_curves_and_the_best_step(tmp_path):
    _write(tmp_path)
    figure = learning_curves(tmp_path, synthetic=True)
    loss, accuracy, rate = figure.axes
    thin, mean, validation = loss.lines[:3]
    # Far from the ends it is scipy's running mean of 21 values.
    wanted = uniform_filter1d(np.asarray(thin.get_ydata()), 21)
    np.testing.assert_allclose(mean.get_ydata()[10:-10], wanted[10:-10], rtol=1e-6)
    assert list(validation.get_xdata()) == list(range(40, 401, 40))
    assert len(accuracy.lines) == 3
    assert [float(axes.lines[-1].get_xdata()[0]) for axes in (loss, accuracy, rate)] == [240] * 3
    assert "step 240" in loss.get_title()
    assert loss.get_title().endswith("(synthetic data)")


def test_an_unfinished_line_and_a_run_without_validation(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n{"step": 2, "tr')
    figure = learning_curves(tmp_path)
    assert list(figure.axes[0].lines[0].get_ydata()) == [2.0]
    assert "synthetic" not in figure.axes[0].get_title()


@pytest.mark.parametrize("text", [None, "", '{"step": 1'])
def test_no_steps(tmp_path, text):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        learning_curves(tmp_path)
