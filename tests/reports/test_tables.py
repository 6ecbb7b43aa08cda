import csv
import shutil
import subprocess

import numpy as np
import pytest

from jaxcrop.reports.tables import Table, latex_text, write_tables

TABLE = Table(
    "kinds",
    "Every kind of column,\n% and a line break.",
    {"name_": "text", "pixels": "count", "score": "share", "gain": "points", "fit": "plain"},
    [
        ["a & b", 12_345, 0.12345, 0.031, 0.0123456],
        ["a & b", 1, None, -0.031, float("nan")],
        ["50 % #1_{x}", 0, 1.0, 0.0, 2.0],
    ],
)


def test_csv_holds_numbers_and_latex_what_is_printed(tmp_path):
    write_tables([TABLE, Table("raw", "", {"a": "text"}, [["b"]], latex=False)], tmp_path, "Drawn.")
    with (tmp_path / "kinds.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["name_", "pixels", "score", "gain", "fit"],
            ["a & b", "12345", "0.12345", "0.031", "0.0123456"],
            ["a & b", "1", "", "-0.031", ""],
            ["50 % #1_{x}", "0", "1", "0", "2"],
        ]
    assert (tmp_path / "kinds.tex").read_text().splitlines() == [
        "% Every kind of column, % and a line break.",
        "% Drawn.",
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r"name\_ & pixels & score & gain & fit \\",
        r"\midrule",
        r"a \& b & 12\,345 & 12.3 & $+3.1$ & 0.0123 \\",
        r"a \& b & 1 & -- & $-3.1$ & -- \\",
        r"\addlinespace",
        r"50 \% \#1\_\{x\} & 0 & 100.0 & $+0.0$ & 2 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert not (tmp_path / "raw.tex").exists()


def test_text_cannot_break_out_of_latex():
    assert latex_text("\\input{x}\n%$^~") == (
        r"\textbackslash{}input\{x\} \%\$\textasciicircum{}\textasciitilde{}"
    )


def test_latex_takes_it(tmp_path):
    latex = shutil.which("pdflatex")
    if latex is None:
        pytest.skip("pdflatex absent: install TeX Live to compile a table")
    write_tables([TABLE], tmp_path)
    (tmp_path / "all.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}"
        r"\input{kinds}\end{document}"
    )
    subprocess.run([latex, "-halt-on-error", "all"], cwd=tmp_path, check=True, capture_output=True)


def rows_of(report, name):
    with (report / "tables" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_runs_equal_torchmetrics_on_the_pixels(report, study):
    """Every metric of the paper, over pixels that are expanded from the stored matrices."""
    torch = pytest.importorskip("torch")
    from weights_convert.originals import import_torchvision

    import_torchvision()  # torchmetrics imports it where it is installed
    torchmetrics = pytest.importorskip("torchmetrics")
    names = {
        "accuracy": "Accuracy",
        "f1": "F1Score",
        "precision": "Precision",
        "recall": "Recall",
        "jaccard": "JaccardIndex",
    }
    # Metrics of one kind count the pixels once.
    collections = {
        prefix: torchmetrics.MetricCollection(
            {
                name: getattr(torchmetrics.classification, f"Multiclass{theirs}")(
                    6, average=average, ignore_index=0, validate_args=False
                )
                for name, theirs in names.items()
            },
            compute_groups=[["accuracy", "f1", "precision", "recall"], ["jaccard"]],
        )
        for prefix, average in (("overall", "micro"), ("average", "macro"))
    }
    results = {result.cell.key: result for result in study.sweep.results}
    rows = rows_of(report, "runs")
    assert len(rows) == len(results)
    for row in rows[:: len(rows) // 3]:
        counts = torch.from_numpy(results[row["key"]].confusion)
        truth, guess = (
            torch.arange(6)
            .reshape(shape)
            .expand(6, 6)
            .reshape(-1)
            .repeat_interleave(counts.reshape(-1))
            for shape in ((6, 1), (1, 6))
        )
        for prefix, collection in collections.items():
            for name, theirs in collection(guess, truth).items():
                ours = float(row[f"{prefix}_{name}"])
                assert ours == pytest.approx(theirs.item(), abs=2e-6), (prefix, name)


def test_results_are_means_over_seeds_beside_the_paper(report):
    runs = rows_of(report, "runs")
    results = rows_of(report, "results")
    where = {"region": "africa", "setting": "id", "budget": "900", "trap": ""}

    def chosen(rows, **more):
        return [row for row in rows if all(row[k] == v for k, v in {**where, **more}.items())]

    (row,) = chosen(results, model="SSL4EO-S12", metric="overall_accuracy")
    each = [float(run["overall_accuracy"]) for run in chosen(runs, family="ssl4eo")]
    assert len(each) == int(row["seeds"]) == 3
    assert float(row["value"]) == pytest.approx(np.mean(each), rel=1e-5)
    assert float(row["sd_of_seeds"]) == pytest.approx(np.std(each, ddof=1), rel=1e-4)
    assert float(row["low"]) < float(row["value"]) < float(row["high"])
    assert float(row["paper_v1"]) == 0.8037
    assert float(row["difference_v1"]) == pytest.approx(float(row["value"]) - 0.8037, abs=1e-5)
    assert (row["paper_final"], row["doubtful_final"], row["synthetic"]) == (
        "0.8071",
        "False",
        "True",
    )
    assert (row["classes_counted"], row["classes_present"]) == ("2", "2")
    (europe,) = [
        row
        for row in results
        if (row["region"], row["setting"], row["budget"]) == ("europe", "id", "900")
        and not row["trap"]
        and (row["model"], row["metric"]) == ("SSL4EO-S12", "overall_accuracy")
    ]
    assert (europe["paper_final"], europe["doubtful_final"]) == ("0.9013", "True")
    (other,) = chosen(results, model="ImageNet", metric="overall_accuracy")
    assert other["paper_v1"] == other["difference_v1"] == ""


def test_the_tables_of_the_paper(report):
    budgets = rows_of(report, "id_budgets")
    ours = [row for row in budgets if row["metric"] == "Overall accuracy"]
    assert [(row["region"], row["model"], row["paper"]) for row in ours] == [
        *(
            row
            for region in ("africa", "europe", "south-america")
            for row in (
                (region, "SSL4EO-S12", "v1"),
                (region, "SSL4EO-S12", "final"),
                (region, "SatlasPretrain", ""),
                (region, "ImageNet", ""),
            )
        ),
        ("india", "", "v1"),
    ]
    extra = ours[-1]
    assert [extra[budget] for budget in ("10", "100", "900")] == ["", "", ""]
    assert [extra[f"{budget} paper"] for budget in ("10", "100", "900")] == [
        "0.2904",
        "0.4046",
        "0.519",
    ]
    out_of = rows_of(report, "ood_id")
    (row,) = [
        row for row in out_of if (row["metric"], row["region"]) == ("Overall accuracy", "india")
    ]
    assert row["doubtful"] == "0 100 900"
    assert [row["0 paper"], row["900 paper"]] == ["0.4987", "0.2936"]
    for name in ("id", "ood"):
        table = rows_of(report, name)
        assert len(table) == 9
        assert len(table[0]) == 2 + 16 + 4
