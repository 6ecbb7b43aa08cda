"""The report's tables, as CSV for programs and LaTeX for papers."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxcrop.files import replacing

Kind = Literal["text", "count", "share", "points", "plain"]
"""What a column holds: `share` is printed in per cent and `points` as a signed difference of them,
both in LaTeX alone; CSV has the numbers as they are."""

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "−": r"$-$", "·": r"$\cdot$", "’": "'",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Rows under named columns. `latex` is whether it is one to print, too."""

    name: str
    caption: str
    columns: dict[str, Kind]
    rows: Sequence[Sequence[Any]]
    latex: bool = True


def write_tables(tables: Sequence[Table], folder: Path, warning: str = "") -> None:
    """Write every table to `folder`; LaTeX begins with `warning` as a comment."""
    for table in tables:
        with replacing(folder / f"{table.name}.csv") as draft, draft.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table.columns)
            writer.writerows(map(_csv_row, table.rows))
        if table.latex:
            with replacing(folder / f"{table.name}.tex") as draft:
                draft.write_text("\n".join(_latex_lines(table, warning)) + "\n")


def _csv_row(row: Sequence[Any]) -> list[Any]:
    return [_csv_value(value) for value in row]


def _csv_value(value: Any) -> Any:
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}" if np.isfinite(value) else ""
    return "" if value is None else value


def _latex_lines(table: Table, warning: str) -> Iterator[str]:
    """A tabular for the package booktabs; a rule stands where the first column changes."""
    for line in filter(None, (table.caption, warning)):
        yield f"% {' '.join(line.split())}"
    kinds = list(table.columns.values())
    yield r"\begin{tabular}{" + "".join("l" if kind == "text" else "r" for kind in kinds) + "}"
    yield r"\toprule"
    yield " & ".join(map(latex_text, table.columns)) + r" \\"
    yield r"\midrule"
    before = None
    for row in table.rows:
        if before is not None and kinds[0] == "text" and row[0] != before:
            yield r"\addlinespace"
        before = row[0]
        yield " & ".join(map(_latex_value, row, kinds)) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _latex_value(value: Any, kind: Kind) -> str:
    if value is None or (isinstance(value, (float, np.floating)) and not np.isfinite(value)):
        return "--"
    if kind == "share":
        return f"{100 * value:.1f}"
    if kind == "points":
        return f"${100 * value:+.1f}$"
    if kind == "count":
        return f"{value:,.0f}".replace(",", r"\,")
    return f"{value:.3g}" if kind == "plain" else latex_text(value)


def latex_text(text: Any) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_SPECIAL.get(letter, letter) for letter in " ".join(str(text).split()))
