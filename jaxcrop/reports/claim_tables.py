"""Tables of comparisons: averages, traps, families, ranks, labels needed, learning curves."""

from collections.abc import Sequence

from jaxcrop.reports.analysis import Analysis
from jaxcrop.reports.families import Comparison
from jaxcrop.reports.groups import scenario_title
from jaxcrop.reports.labels import MORE, SHARE, Fit, Need
from jaxcrop.reports.policies import SCORES, Effect
from jaxcrop.reports.study import METRICS
from jaxcrop.reports.tables import Kind, Table
from jaxcrop.reports.traps import TrapEffect

_ENDS = ("low", "high")


def claim_tables(analysis: Analysis) -> list[Table]:
    """The tables of comparisons that have any row."""
    tables = (
        _policies(analysis.effects),
        _traps(analysis.traps),
        _differences(analysis.comparison),
        _ranks(analysis.comparison),
        _efficiency(analysis.worth.needs),
        _learning_curves(analysis.worth.fits),
    )
    return [table for table in tables if table.rows]


def _policies(effects: Sequence[Effect]) -> Table:
    rows = []
    for effect in effects:
        row = [effect.claim.title, effect.region or "all", effect.model]
        for metric in SCORES:
            row += [*effect.score[metric], effect.paper.get(metric)]
        rows.append([*row, effect.denominator])
    columns: dict[str, Kind] = dict.fromkeys(("claim", "region", "model"), "text")
    for metric in SCORES:
        columns |= dict.fromkeys((metric, *(f"{metric} {end}" for end in _ENDS)), "points")
        columns[f"{metric} of the paper, v1"] = "points"
    columns["share of the average that the denominator makes"] = "share"
    return Table("policies", "Two claims under three averages.", columns, rows)


def _traps(effects: Sequence[TrapEffect]) -> Table:
    rows = [
        [effect.trap, effect.region or "all", effect.pairs, title, *effect.score[metric]]
        for effect in effects
        for metric, title in METRICS.items()
    ]
    columns: dict[str, Kind] = {
        **{"trap": "text", "region": "text", "groups": "count", "metric": "text"},
        **dict.fromkeys(("change", *_ENDS), "points"),
    }
    return Table("traps", "What each trap changes.", columns, rows)


def _differences(comparison: Comparison) -> Table:
    rows = [
        [
            *(METRICS[pair.metric], scenario_title(pair.scenario), pair.first, pair.second),
            *(*pair.difference, pair.p_value),
        ]
        for pair in comparison.pairs
    ]
    columns: dict[str, Kind] = {
        **dict.fromkeys(("metric", "training data", "first", "second"), "text"),
        **dict.fromkeys(("difference", *_ENDS), "points"),
        "p, corrected": "plain",
    }
    return Table("differences", "Families compared, mean over regions.", columns, rows)


def _ranks(comparison: Comparison) -> Table:
    rows = []
    for rank in comparison.ranks:
        row = [METRICS[rank.metric], scenario_title(rank.scenario)]
        for mean, first in zip(rank.stability.mean_ranks, rank.stability.first, strict=True):
            row += [mean, first]
        test = rank.over_regions
        tested = [test.statistic, test.p_value, test.critical_difference] if test else [None] * 3
        rows.append([*row, rank.stability.kendall_w, *tested, rank.agreement])
    columns: dict[str, Kind] = dict.fromkeys(("metric", "training data"), "text")
    for model in comparison.lineup:
        columns |= {f"{model}, mean rank": "plain", f"{model}, first": "share"}
    columns |= dict.fromkeys(
        (
            "Kendall's W",
            "Friedman's statistic over regions",
            "p (Iman and Davenport)",
            "Nemenyi's critical difference",
            "Kendall's tau with the last in distribution",
        ),
        "plain",
    )
    return Table("ranks", "Ranks of families over regions, seeds and blocks.", columns, rows)


def _efficiency(needs: Sequence[Need]) -> Table:
    rows = [
        [METRICS[need.metric], need.region, need.model, need.setting, *need.labels]
        for need in needs
    ]
    columns: dict[str, Kind] = {
        **dict.fromkeys(("metric", "region", "model", "setting"), "text"),
        **dict.fromkeys(("labels", *_ENDS), "count"),
    }
    return Table("efficiency", f"Labels for {SHARE:.0%} of the full score.", columns, rows)


def _learning_curves(fits: Sequence[Fit]) -> Table:
    rows = [
        [
            *(METRICS[fit.metric], fit.region, fit.model),
            *(fit.law.asymptote, fit.law.scale, fit.law.exponent, *fit.limit, *fit.gain),
            fit.law.assumed,
        ]
        for fit in fits
    ]
    columns: dict[str, Kind] = {
        **dict.fromkeys(("metric", "region", "model"), "text"),
        **dict.fromkeys(("asymptote a", "scale b", "exponent c"), "plain"),
        **dict.fromkeys(("limit", *(f"limit {end}" for end in _ENDS)), "share"),
        **dict.fromkeys((f"{MORE} more", *(f"{MORE} more, {end}" for end in _ENDS)), "points"),
        "assumed": "text",
    }
    return Table("learning_curves", "Error = a + b n^-c in distribution.", columns, rows)
