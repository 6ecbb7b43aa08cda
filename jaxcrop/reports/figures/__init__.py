"""The report's figures, for print: each as PNG and SVG."""

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from jaxcrop.figures import save_figure
from jaxcrop.reports.analysis import Analysis
from jaxcrop.reports.figures import claims, inside, scores
from jaxcrop.reports.figures.style import STYLE, region_title
from jaxcrop.reports.pictures import example_chips
from jaxcrop.reports.study import METRICS

DRAWN_METRICS = ("overall_accuracy", "average_accuracy", "present_accuracy")


def write_figures(analysis: Analysis, folder: Path) -> dict[str, str]:
    """Write every figure to `folder` as PNG and SVG; gives the files' names and titles."""
    written = {}
    with rc_context(STYLE):
        for name, title, figure in drawn(analysis):
            for suffix in ("png", "svg"):
                save_figure(figure, folder / f"{name}.{suffix}")
            written[name] = title
    return written


def drawn(analysis: Analysis) -> Iterator[tuple[str, str, Figure]]:
    """Each figure with the name of its files and a title, to be drawn in the report's `STYLE`."""
    study, comparison = analysis.study, analysis.comparison
    for metric in DRAWN_METRICS:
        yield f"curves-{metric}", METRICS[metric], scores.curves(study, metric)
        yield f"heat-{metric}", METRICS[metric], scores.heat(study, metric)
    yield "world", "Map", scores.world(study)
    if analysis.effects:
        yield "policies", "Averages", claims.policies(study, analysis.effects)
    yield "classes", "Classes", inside.classes(study)
    yield "calibration", "Calibration", inside.calibration(study)
    for region in study.regions:
        if inside.here(study, region):
            title = f"Confusion, {region_title(region)}"
            yield f"confusion-{_slug(region)}", title, inside.confusion(study, region)
    chips = sorted(example_chips(study), key=lambda chip: chip.region)
    for region, of_region in groupby(chips, key=lambda chip: chip.region):
        title = f"Examples, {region_title(region)}"
        yield f"examples-{_slug(region)}", title, inside.examples(study, list(of_region))
    if analysis.traps:
        yield "traps", "Traps", claims.traps(study, analysis.traps)
    if comparison.pairs:
        yield "differences", "Families compared", claims.differences(study, comparison)
        yield "ranks", "Ranks", claims.ranks(study, comparison)
    if analysis.worth.needs:
        yield "efficiency", "Labels needed", claims.efficiency(study, analysis.worth.needs)


def _slug(name: str) -> str:
    """A name that any file system takes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "region"
