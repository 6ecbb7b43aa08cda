"""`python -m jaxcrop.report SWEEP`: a sweep's results as one page, with its figures and tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxcrop.cli import exit_on_input_error


@dataclass(frozen=True)
class ReportConfig:
    """Write what a sweep found, as far as it has come: one page, its figures and its tables."""

    sweep: Annotated[Path, tyro.conf.Positional]
    """Folder that `python -m jaxcrop.sweep` fills."""
    out: Path | None = None
    """Folder that receives report.html, figures/ and tables/ (default: SWEEP/report)."""


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report as the arguments say, and name the page."""
    with exit_on_input_error():
        config = tyro.cli(ReportConfig, args=argv, prog="python -m jaxcrop.report")
        # Heavy imports wait until the arguments are known to be right: --help answers at once.
        from jaxcrop.reports.write import write_report  # noqa: PLC0415

        path = write_report(config.sweep, config.out or config.sweep / "report")
        print(f"written to {path.parent}: {path.name}, figures/, tables/")


if __name__ == "__main__":
    main()
