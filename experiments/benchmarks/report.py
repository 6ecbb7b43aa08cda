"""How heavy a report of 500 runs is, how long it takes to write, and how fast it opens.

    python experiments/benchmarks/report.py [--sweep SWEEP]

Without a sweep, the results of 500 runs are made up (tests/made_up_results.py). The page is opened
from disk in Debian's Chromium by Playwright (extra `dev`, `apt-get install chromium`), each time
in a fresh profile: the time runs from asking for the page until it has loaded and two frames have
been drawn. Prints the median of several openings, on a wide screen and on a phone.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[2] / "tests"
OPENINGS = 9
SCREENS = {"wide": (1400, 900), "phone": (390, 844)}
ARGUMENTS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def made_up_sweep(folder: Path) -> Path:
    """500 runs: five regions, three families, seven scenarios, four seeds, and an ablation."""
    sys.path.insert(0, str(TESTS))
    from made_up_results import TRAPS, made_up_cells, write_made_up_sweep  # noqa: PLC0415

    cells = made_up_cells(traps=tuple(TRAPS))
    cells += made_up_cells(families=("ssl4eo",), scenarios=(("id", None),))
    return write_made_up_sweep(folder, cells, chips=100)


def opening_seconds(page: Path, size: tuple[int, int]) -> list[float]:
    """Seconds until the page has loaded and is drawn, for each opening."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    taken = []
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        for _ in range(OPENINGS):
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=arguments
            )
            tab = browser.new_page(viewport=dict(zip(("width", "height"), size, strict=True)))
            began = time.perf_counter()
            tab.goto(page.resolve().as_uri(), wait_until="load")
            tab.evaluate(TWO_FRAMES)
            taken.append(time.perf_counter() - began)
            browser.close()
    return taken


def main() -> None:
    """Write the report, weigh it and open it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=Path, help="folder of a sweep (default: made up)")
    config = parser.parse_args()
    from jaxcrop.reports.sweep import read_sweep  # noqa: PLC0415
    from jaxcrop.reports.write import write_report  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        sweep = config.sweep or made_up_sweep(Path(folder) / "sweep")
        print(f"{len(read_sweep(sweep).results)} runs")
        began = time.perf_counter()
        page = write_report(sweep, Path(folder) / "report")
        print(f"written in {time.perf_counter() - began:.1f} s with its figures and tables")
        print(f"the page weighs {page.stat().st_size / 1e6:.2f} MB")
        for name, size in SCREENS.items():
            taken = opening_seconds(page, size)
            print(
                f"opens in {statistics.median(taken):.2f} s, {name} screen "
                f"(from {min(taken):.2f} to {max(taken):.2f} s, {OPENINGS} openings)"
            )


if __name__ == "__main__":
    main()
