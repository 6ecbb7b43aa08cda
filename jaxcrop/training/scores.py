"""Score a run: the table that is printed, and the files from which every figure can be redone."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from jaxcrop.crops import CLASS_NAMES
from jaxcrop.data.reading import Chip
from jaxcrop.errors import InputError
from jaxcrop.figures import confusion_figure, save_figure
from jaxcrop.files import replacing
from jaxcrop.mesh import (
    data_mesh,
    evaluation_batch_size,
    is_first_process,
    put_everywhere,
)
from jaxcrop.training.baselines import baselines
from jaxcrop.training.calibration import calibration_errors
from jaxcrop.training.checkpoints import Which
from jaxcrop.training.evaluation import Evaluation, evaluate_chips
from jaxcrop.training.feed import in_order
from jaxcrop.training.metrics import metrics, per_class
from jaxcrop.training.reliability import reliability_figure
from jaxcrop.training.runs import Run
from jaxcrop.training.step import make_eval_step

_SCORES = ("accuracy", "f1", "precision", "recall", "jaccard")
_AVERAGES = {
    "overall": "over all pixels",
    "average": "over classes, the paper's",
    "present": "over classes in the labels",
}


def evaluate_run(
    run: Run, chips: Sequence[Chip], checkpoint: Which, batch_size: int, *, pictures: int = 0
) -> Evaluation:
    """Evaluate a checkpoint of `run` on `chips`, about `batch_size` at a time.

    The predictions of the first `pictures` chips are kept.
    """
    mesh = data_mesh()
    network, values = run.values(checkpoint)
    dtype = run.config.device.compute_dtype
    return evaluate_chips(
        make_eval_step(network, run.band_input, dtype, run.predicted, mesh),
        put_everywhere(values, mesh),
        in_order(chips, evaluation_batch_size(batch_size, len(chips), mesh), mesh),
        pictures=pictures,
    )


def score_run(run: Run, split: str, checkpoint: Which, batch_size: int) -> dict[str, dict]:
    """Score a checkpoint of `run` on `split` beside the baselines: print a table, write the files.

    RUN/evaluation/SPLIT receives `metrics.json`, `confusion.csv`, `confusion.png`,
    `reliability.png` and `per_chip.parquet`; from the last, every metric, averaging policy and
    bootstrap follows without running the model again. Returns the metrics of the model and of each
    baseline. Raises InputError where the folder cannot be written.
    """
    experiment = run.experiment()
    chips = experiment.chips(split, run.band_input)
    evaluation = evaluate_run(run, chips, checkpoint, batch_size)
    references = baselines(experiment.chips("train", run.band_input), chips)
    scores = {"model": evaluation.metrics}
    scores |= {name: metrics(confusion) for name, confusion in references.items()}

    if not is_first_process():
        return scores
    calibration = calibration_errors(evaluation.calibration)
    title = f"{run.title}, {checkpoint} checkpoint, {len(chips)} {split} chips"
    print(_table(title, scores))
    print(
        f"Cohen's kappa {evaluation.metrics['kappa']:.3f}, expected calibration error "
        f"{calibration['expected']:.1%}, maximum {calibration['maximum']:.1%}"
    )
    print(_class_table(evaluation.confusion))
    folder = run.folder / "evaluation" / split
    try:
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "title": title,
            "synthetic": run.synthetic,
            **scores,
            "calibration": {**calibration, "bins": evaluation.calibration.tolist()},
            "per_class": _of_class(evaluation.confusion),
        }
        _write_text(folder / "metrics.json", json.dumps(content, indent=1))
        _write_text(folder / "confusion.csv", _confusion_csv(evaluation.confusion))
        figure = confusion_figure(evaluation.confusion, synthetic=run.synthetic)
        save_figure(figure, folder / "confusion.png")
        figure = reliability_figure(evaluation.calibration, synthetic=run.synthetic)
        save_figure(figure, folder / "reliability.png")
        _write_per_chip(folder / "per_chip.parquet", evaluation)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror}): free it or its disk"
        ) from error
    print(
        f"written to {folder}: metrics.json, confusion.csv, confusion.png, reliability.png, "
        "per_chip.parquet"
    )
    return scores


def _table(title: str, scores: dict[str, dict[str, float]]) -> str:
    """The metrics in per cent, a row each, the model and the baselines side by side."""
    rows = [
        (
            f"{score} {meaning}",
            [f"{values[f'{average}_{score}']:.1%}" for values in scores.values()],
        )
        for average, meaning in _AVERAGES.items()
        for score in _SCORES
    ]
    left = max(len(name) for name, _ in rows)
    widths = [max(len(name), 6) for name in scores]
    lines = [
        title,
        " " * left + "".join(f"  {n:>{w}}" for n, w in zip(scores, widths, strict=True)),
    ]
    for name, values in rows:
        cells = "".join(f"  {value:>{w}}" for value, w in zip(values, widths, strict=True))
        lines.append(f"{name:<{left}}{cells}")
    return "\n".join(lines)


def _of_class(confusion: Int64[np.ndarray, "classes classes"]) -> dict[str, dict[str, float]]:
    """The scores of each class that occurs in the labels, by its name."""
    columns = per_class(confusion)
    return {
        name: {column: values[number].item() for column, values in columns.items()}
        for number, name in enumerate(CLASS_NAMES)
        if columns["truth"][number]
    }


def _class_table(confusion: Int64[np.ndarray, "classes classes"]) -> str:
    """A row for each class that occurs in the labels."""
    lines = [f"{'class':<8}{'pixels':>12}{'recall':>9}{'precision':>11}{'F1':>8}{'IoU':>8}"]
    for name, row in _of_class(confusion).items():
        lines.append(
            f"{name:<8}{row['truth']:>12,}{row['recall']:>9.1%}{row['precision']:>11.1%}"
            f"{row['f1']:>8.1%}{row['jaccard']:>8.1%}"
        )
    return "\n".join(lines)


def _confusion_csv(confusion: Int64[np.ndarray, "classes classes"]) -> str:
    lines = [",".join(["truth\\prediction", *CLASS_NAMES])]
    for name, row in zip(CLASS_NAMES, confusion, strict=True):
        lines.append(",".join([name, *map(str, row)]))
    return "\n".join(lines) + "\n"


def _write_per_chip(path: Path, evaluation: Evaluation) -> None:
    """One row per chip, true class and predicted class, with the number of pixels."""
    chips, classes, _ = evaluation.per_chip.shape
    names = np.array(CLASS_NAMES)
    table = pa.table(
        {
            "chip_id": np.repeat(evaluation.chip_ids, classes * classes),
            "truth": np.tile(np.repeat(names, classes), chips),
            "prediction": np.tile(names, chips * classes),
            "pixels": evaluation.per_chip.ravel(),
        }
    )
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)
