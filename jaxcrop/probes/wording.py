"""A recommendation in words and tables, for a terminal."""

from collections.abc import Iterator

import numpy as np

from jaxcrop.probes.candidates import RAW
from jaxcrop.probes.recommendation import METRICS, MORE, Recommendation
from jaxcrop.statistics.bootstrap import Interval


def text(found: Recommendation, target: float | None = None) -> str:
    """Ranking, learning curves, and what follows from them; `target` is a score to be reached."""
    return "\n".join([*_ranking(found), "", *_curves(found), "", *_advice(found, target)])


def _ranking(found: Recommendation) -> Iterator[str]:
    width = max(len(one.name) for one in found.standings)
    heads = "".join(f"  {short:<22}" for short in METRICS.values())
    yield f"{'':4}{f'with {found.budgets[-1]} labelled chips':<{width}}{heads}  first  tied"
    for rank, one in enumerate(found.standings, start=1):
        scores = "".join(f"  {_percent(one.scores[metric]):<22}" for metric in METRICS)
        tied = "" if rank == 1 else "yes" if one.tied else "no"
        yield f"{rank:>2}. {one.name:<{width}}{scores}  {_share(one.first):>5}  {tied}".rstrip()


def _curves(found: Recommendation) -> Iterator[str]:
    width = max(len(one.name) for one in found.standings)
    heads = "".join(f"{budget:>8}" for budget in found.budgets)
    yield f"{'':4}{f'{METRICS[found.metric]} by labelled chips':<{width}}{heads}"
    for one in found.standings:
        yield f"{'':4}{one.name:<{width}}" + "".join(f"{s.value:>8.1%}" for s in one.curve)


def _advice(found: Recommendation, target: float | None) -> Iterator[str]:
    first, *others = found.standings
    tied = [one.name for one in others if one.tied]
    if first.name == RAW:
        yield "No weights are better here than a pixel's bands alone."
    elif RAW in tied:
        yield f"{first.name} leads, but is not surely better than a pixel's bands alone."
    elif tied:
        yield f"{first.name} leads."
    else:
        yield f"Use {first.name}: it is better than every other that was compared."
    tied = [name for name in tied if name != RAW]
    if tied:
        yield (
            f"Statistically tied with it: {', '.join(tied)}. Choose among them by size, speed and "
            "licence."
        )
    if found.law:
        gain, at = found.gain, found.budgets[-1]
        yield (
            f"{MORE} more labelled chips beyond {at} would bring {first.name} "
            f"{100 * gain.value:+.1f} points {METRICS[found.metric]} "
            f"({100 * gain.low:.1f} to {100 * gain.high:.1f})."
        )
        enough = found.enough
        yield (
            f"95 % of its score with {at} is reached with about {_number(enough.value)}"
            f"{_between(enough)}."
        )
        if target is not None:
            yield _reach(found, target)
    yield from (f"Beware: {warning}." for warning in found.warnings)


def _reach(found: Recommendation, target: float) -> str:
    needed = found.law.labels_for(1 - target)
    what = f"{target:.1%} {METRICS[found.metric]}"
    if np.isinf(needed.value):
        return f"{what} is more than its learning curve promises with any number of labels."
    return f"{what} would take about {_number(needed.value)} labelled chips{_between(needed)}."


def _percent(score: Interval) -> str:
    limits = f" ({score.low:.1%} to {score.high:.1%})" if np.isfinite(score.low) else ""
    return f"{score.value:.1%}{limits}"


def _share(chance: float) -> str:
    return "" if np.isnan(chance) else f"{chance:.0%}"


def _number(count: float) -> str:
    return "infinitely many" if np.isinf(count) else f"{count:,.0f}"


def _between(count: Interval) -> str:
    if np.isnan(count.low):
        return ""
    if np.isinf(count.high):
        return f" ({_number(count.low)} or more)"
    return f" ({_number(count.low)} to {_number(count.high)})"
