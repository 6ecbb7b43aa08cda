"""Write a sweep's report: the page, its figures and its tables."""

from pathlib import Path

from jaxcrop.errors import InputError
from jaxcrop.files import replacing
from jaxcrop.reports.analysis import analysed
from jaxcrop.reports.claim_tables import claim_tables
from jaxcrop.reports.figures import write_figures
from jaxcrop.reports.findings import warnings
from jaxcrop.reports.page import page
from jaxcrop.reports.score_tables import score_tables
from jaxcrop.reports.sweep import read_sweep
from jaxcrop.reports.tables import write_tables


def write_report(sweep: Path, out: Path) -> Path:
    """Write report.html, figures/ and tables/ of a sweep's folder to `out`; gives the page's path.

    Raises InputError where the folder holds no results or `out` cannot be written.
    """
    analysis = analysed(read_sweep(sweep))
    tables = [*score_tables(analysis.study), *claim_tables(analysis)]
    path = out / "report.html"
    try:
        for folder in (out / "figures", out / "tables"):
            folder.mkdir(parents=True, exist_ok=True)
        warning = " ".join(" ".join(words) for words in warnings(analysis.study.sweep))
        write_tables(tables, out / "tables", warning)
        figures = write_figures(analysis, out / "figures")
        latex = {table.name: table.latex for table in tables}
        text = page(analysis, figures, latex)
        with replacing(path) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror}): give another folder with --out"
        ) from error
    return path
