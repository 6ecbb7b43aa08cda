"""The report's figures, for print: each as PNG and SVG."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from jaxcrop.figures import save_figure
from jaxcrop.reports.families import Families
from jaxcrop.reports.figures import claims, inside, scores
from jaxcrop.reports.figures.style import STYLE, region_title
from jaxcrop.reports.pictures import example_chips
from jaxcrop.reports.policies import Effect
from jaxcrop.reports.study import METRICS, Study
from jaxcrop.reports.traps import TrapEffect

DRAWN_METRICS = ("overall_accuracy", "average_accuracy", "present_accuracy")


def write_figures(
    study: Study,
    effects: Sequence[Effect],
    traps: Sequence[TrapEffect],
    families: Families,
    folder: Path,
) -> dict[str, str]:
    """Write every figure to `folder` as PNG and SVG; gives the files' names and titles."""
    written = {}
    with rc_context(STYLE):
        for name, title, figure in _figures(study, effects, traps, families):
            for suffix in ("png", "svg"):
                save_figure(figure, folder / f"{name}.{suffix}")
            written[name] = title
    return written


def _figures(
    study: Study, effects: Sequence[Effect], traps: Sequence[TrapEffect], families: Families
) -> Iterator[tuple[str, str, Figure]]:
    for metric in DRAWN_METRICS:
        yield f"curves-{metric}", METRICS[metric], scores.curves(study, metric)
        yield f"heat-{metric}", METRICS[metric], scores.heat(study, metric)
    yield "world", "Map", scores.world(study)
    if effects:
        yield "policies", "Averages", claims.policies(study, effects)
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
    if traps:
        yield "traps", "Traps", claims.traps(study, traps)
    if families.pairs:
        yield "differences", "Families compared", claims.differences(study, families)
        yield "ranks", "Ranks", claims.ranks(study, families)
    if families.efficiency:
        yield "efficiency", "Labels needed", claims.efficiency(study, families)


def _slug(name: str) -> str:
    """A name that any file system takes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "region"
