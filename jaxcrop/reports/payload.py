"""What the page's charts are drawn from, as plain values for JSON."""

import math
from typing import Any

import numpy as np

from jaxcrop.crops import CROPS
from jaxcrop.regions import REGIONS
from jaxcrop.reports.analysis import Analysis
from jaxcrop.reports.estimates import CLASS_SCORES, Estimate, chip_blocks
from jaxcrop.reports.families import COMPARED, Comparison
from jaxcrop.reports.groups import SETTING_TITLES, Group, region_name, scenario_title
from jaxcrop.reports.labels import SHARE, Fit, Need
from jaxcrop.reports.paper import EXTRA_REGION, Known, known
from jaxcrop.reports.pictures import MOST_BYTES, classes_uri, example_chips, rgb_uri
from jaxcrop.reports.policies import Effect, classes_counted
from jaxcrop.reports.study import METRICS, Study
from jaxcrop.reports.traps import TrapEffect
from jaxcrop.reports.world import SIZE, land_path, on_map
from jaxcrop.training.metrics import per_class

METRIC_GROUPS = {
    "overall": "All pixels alike",
    "average": "Classes alike: the paper's moving denominator",
    "present": "Classes alike: those in the labels",
    "kappa": "Agreement beyond chance",
}

_AVERAGES = {
    "overall": "All pixels alike",
    "average": "Classes alike, the paper's denominator",
    "present": "Classes alike, those in the labels",
}
_SCORES = {
    "accuracy": "Accuracy",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "jaccard": "IoU (Jaccard)",
}
_KEYS = tuple(METRICS)


def payload(analysis: Analysis) -> dict[str, Any]:
    """Everything the page shows in charts; numbers have four digits, NaN is None.

    Regions, models, scenarios, metrics and classes are named once, and by their numbers elsewhere.
    """
    study = analysis.study
    number = Numbers(study)
    return rounded(
        {
            "regions": [_region(study, region) for region in study.regions],
            "models": [
                {"name": m.name, "family": m.family, "representative": m.representative}
                for m in study.models
            ],
            "settings": SETTING_TITLES,
            "scenarios": [[*scenario, scenario_title(scenario)] for scenario in study.scenarios],
            "metrics": [
                {"key": key, "title": title, "group": METRIC_GROUPS[key.split("_")[0]]}
                for key, title in METRICS.items()
            ],
            "table": {
                "averages": list(_AVERAGES.values()),
                "rows": [
                    *(
                        [title, *(_distinct(f"{average}_{score}") for average in _AVERAGES)]
                        for score, title in _SCORES.items()
                    ),
                    ["Cohen's kappa", "kappa", "", ""],
                ],
            },
            "classes": [{"name": crop.name, "rgb": _css(crop.rgb)} for crop in CROPS],
            "groups": [
                _group(number, group, estimate)
                for group, estimate in zip(study.groups, study.estimates, strict=True)
                if not group.trap
            ],
            "paper": _paper(number),
            "claims": [claim.title for claim in dict.fromkeys(e.claim for e in analysis.effects)],
            "effects": _effects(number, analysis.effects),
            "traps": [_trap(number, effect) for effect in analysis.traps],
            "world": {"size": SIZE, "path": land_path()},
            "examples": _examples(study, number),
            "compared": COMPARED,
            **_comparison(number, analysis.comparison),
            "share": round(100 * SHARE),
            "efficiency": [_need(number, need) for need in analysis.worth.needs],
            "fits": [_fit(number, fit) for fit in analysis.worth.fits],
        }
    )


class Numbers:
    """The places of regions, models and scenarios in the page's lists."""

    def __init__(self, study: Study):
        self.region = {region: k for k, region in enumerate(study.regions)}
        self.model = {model.name: k for k, model in enumerate(study.models)}
        self.scenario = {scenario: k for k, scenario in enumerate(study.scenarios)}


def rounded(value: Any) -> Any:
    """Plain values for JSON: floats with four digits after the point, None for NaN."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(part) for part in value]
    if isinstance(value, (float, np.floating)):
        return None if not math.isfinite(value) else round(float(value), 4)
    return value.item() if isinstance(value, np.generic) else value


def _distinct(metric: str) -> str:
    """The one of METRICS that has the same value."""
    if metric in METRICS:
        return metric
    return (
        "overall_accuracy" if metric.startswith("overall") else metric.replace("recall", "accuracy")
    )


def _css(rgb: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _region(study: Study, region: str) -> dict[str, Any]:
    results = [r for group in study.groups if group.region == region for r in group.results]
    lon, lat = study.place(region)
    x, y = on_map(lon, lat)
    pixels = per_class(results[0].confusion)["truth"]
    known_region = REGIONS.get(region)
    return {
        "title": region_name(region),
        "subtitle": f"{known_region.dataset} {known_region.year}" if known_region else "",
        "lon": lon,
        "lat": lat,
        "x": x,
        "y": y,
        "chips": len(study.chips(region)),
        "blocks": 1 + max(chip_blocks(results).values()),
        "pixels": int(pixels.sum()),
        "classes": np.flatnonzero(pixels).tolist(),
        "shares": pixels / max(pixels.sum(), 1),
    }


def _group(number: Numbers, group: Group, estimate: Estimate) -> dict[str, Any]:
    scores = []
    for metric in _KEYS:
        spread = np.std(estimate.seeds[metric], ddof=1) if len(group.results) > 1 else np.nan
        scores.append([*estimate.interval(metric), spread])
    return {
        "r": number.region[group.region],
        "m": number.model[group.model],
        "s": number.scenario[group.scenario],
        "n": len(group.results),
        "v": scores,
        "c": group.confusions.sum(axis=0).ravel(),
        "k": {name: estimate.classes[name] for name in CLASS_SCORES},
        "b": np.rint(sum(result.calibration for result in group.results)).astype(np.int64),
        "d": classes_counted(group),
    }


def _paper(number: Numbers) -> list[dict[str, Any]]:
    """The figures of the study's regions, and of the paper's sixth (region -1 if not of them)."""
    place = {REGIONS[of].dataset: k for of, k in number.region.items() if of in REGIONS}
    place.setdefault(REGIONS[EXTRA_REGION].dataset, -1)
    return [
        {
            "r": place[dataset],
            "k": _KEYS.index(metric),
            "s": [setting, budget],
            **_figure(figure),
        }
        for (dataset, metric, setting, budget), figures in known().items()
        if dataset in place
        for figure in figures
    ]


def _figure(figure: Known) -> dict[str, Any]:
    return {
        "version": figure.version,
        "v": figure.value,
        "doubtful": figure.doubtful,
        "note": figure.note,
    }


def _effects(number: Numbers, effects: list[Effect]) -> list[dict[str, Any]]:
    claims = list(dict.fromkeys(effect.claim for effect in effects))
    return [
        {
            "c": claims.index(effect.claim),
            "r": -1 if effect.region is None else number.region[effect.region],
            "m": number.model[effect.model],
            "v": effect.score,
            "share": effect.denominator,
            "paper": effect.paper,
        }
        for effect in effects
    ]


def _trap(number: Numbers, effect: TrapEffect) -> dict[str, Any]:
    return {
        "t": effect.trap,
        "r": -1 if effect.region is None else number.region[effect.region],
        "n": effect.pairs,
        "v": [effect.score[metric] for metric in _KEYS],
    }


def _comparison(number: Numbers, comparison: Comparison) -> dict[str, Any]:
    return {
        "lineup": [number.model[model] for model in comparison.lineup],
        "pairs": [
            {
                "k": pair.metric,
                "s": number.scenario[pair.scenario],
                "a": number.model[pair.first],
                "b": number.model[pair.second],
                "v": pair.difference,
                "p": pair.p_value,
                "regions": [[number.region[region], of] for region, of in pair.regions.items()],
            }
            for pair in comparison.pairs
        ],
        "ranks": [
            {
                "k": rank.metric,
                "s": number.scenario[rank.scenario],
                "rank": rank.stability.mean_ranks,
                "first": rank.stability.first,
                "w": rank.stability.kendall_w,
                "p": rank.over_regions.p_value if rank.over_regions else None,
                "tau": rank.agreement,
            }
            for rank in comparison.ranks
        ],
    }


def _need(number: Numbers, need: Need) -> dict[str, Any]:
    return {
        "k": need.metric,
        "r": number.region[need.region],
        "m": number.model[need.model],
        "setting": need.setting,
        "v": need.labels,
    }


def _fit(number: Numbers, fit: Fit) -> dict[str, Any]:
    return {
        "k": fit.metric,
        "r": number.region[fit.region],
        "m": number.model[fit.model],
        "a": fit.law.asymptote,
        "b": fit.law.scale,
        "c": fit.law.exponent,
        "from": fit.least,
        "to": fit.most,
        "limit": fit.limit,
        "gain": fit.gain,
    }


def _examples(study: Study, number: Numbers) -> dict[int, list[dict[str, Any]]]:
    """Example chips with their pictures, as many as MOST_BYTES allow."""
    found: dict[int, list[dict[str, Any]]] = {}
    bytes_left = MOST_BYTES
    for example in example_chips(study):
        chip = {
            "chip": example.chip_id,
            "rgb": rgb_uri(example.rgb),
            "label": classes_uri(example.label),
            "predictions": {
                f"{number.model[guess.group.model]} {number.scenario[guess.group.scenario]}": {
                    "image": classes_uri(guess.classes),
                    "right": guess.right,
                }
                for guess in example.guesses
            },
        }
        images = [of["image"] for of in chip["predictions"].values()]
        bytes_left -= sum(map(len, [chip["rgb"], chip["label"], *images]))
        if bytes_left < 0:
            break
        found.setdefault(number.region[example.region], []).append(chip)
    return found
