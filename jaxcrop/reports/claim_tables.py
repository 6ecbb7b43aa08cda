"""Tables of comparisons: averages, traps, families, ranks, labels needed, learning curves."""

from collections.abc import Sequence

from jaxcrop.reports.families import SHARE, Families
from jaxcrop.reports.groups import scenario_title
from jaxcrop.reports.policies import SCORES, Effect
from jaxcrop.reports.study import METRICS
from jaxcrop.reports.tables import Kind, Table
from jaxcrop.reports.traps import TrapEffect

_ENDS = ("low", "high")


def claim_tables(
    effects: Sequence[Effect], traps: Sequence[TrapEffect], families: Families
) -> list[Table]:
    """The tables of comparisons that have any row."""
    tables = (
        _policies(effects),
        _traps(traps),
        _differences(families),
        _ranks(families),
        _efficiency(families),
        _learning_curves(families),
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


def _differences(families: Families) -> Table:
    rows = [
        [
            *(METRICS[pair.metric], scenario_title(pair.scenario), pair.first, pair.second),
            *(*pair.difference, pair.p_value),
        ]
        for pair in families.pairs
    ]
    columns: dict[str, Kind] = {
        **dict.fromkeys(("metric", "training data", "first", "second"), "text"),
        **dict.fromkeys(("difference", *_ENDS), "points"),
        "p, corrected": "plain",
    }
    return Table("differences", "Families compared, mean over regions.", columns, rows)


def _ranks(families: Families) -> Table:
    rows = []
    for rank in families.ranks:
        row = [METRICS[rank.metric], scenario_title(rank.scenario)]
        for mean, first in zip(rank.mean, rank.first, strict=True):
            row += [mean, first]
        rows.append([*row, rank.concordance])
    columns: dict[str, Kind] = dict.fromkeys(("metric", "training data"), "text")
    for model in families.lineup:
        columns |= {f"{model}, mean rank": "plain", f"{model}, first": "share"}
    columns["Kendall's W"] = "plain"
    return Table("ranks", "Ranks of families over regions and seeds.", columns, rows)


def _efficiency(families: Families) -> Table:
    rows = [
        [METRICS[need.metric], need.region, need.model, need.setting, *need.labels]
        for need in families.efficiency
    ]
    columns: dict[str, Kind] = {
        **dict.fromkeys(("metric", "region", "model", "setting"), "text"),
        **dict.fromkeys(("labels", *_ENDS), "count"),
    }
    return Table("efficiency", f"Labels for {SHARE:.0%} of the full score.", columns, rows)


def _learning_curves(families: Families) -> Table:
    rows = [
        [
            *(METRICS[fit.metric], fit.region, fit.model),
            *(fit.asymptote, fit.scale, fit.exponent, *fit.limit, *fit.gain),
        ]
        for fit in families.fits
    ]
    columns: dict[str, Kind] = {
        **dict.fromkeys(("metric", "region", "model"), "text"),
        **dict.fromkeys(("asymptote a", "scale b", "exponent c"), "plain"),
        **dict.fromkeys(("limit", *(f"limit {end}" for end in _ENDS)), "share"),
        **dict.fromkeys(("next 100 labels", *(f"next 100 {end}" for end in _ENDS)), "points"),
    }
    return Table("learning_curves", "Error = a + b n^-c in distribution.", columns, rows)
