"""The head of a report: what was run, how far it carries, and what came out, in sentences."""

from collections.abc import Iterator

import numpy as np

from jaxcrop.reports.groups import SETTING_TITLES, Model, Scenario, scenario_title
from jaxcrop.reports.policies import Effect
from jaxcrop.reports.study import METRICS, Study
from jaxcrop.reports.sweep import Sweep
from jaxcrop.reports.traps import TrapEffect
from jaxcrop.statistics.bootstrap import Interval, interval
from jaxcrop.training.metrics import per_class

SYNTHETIC = (
    "Synthetic data:",
    "says that the tool works, nothing about how well a backbone maps crops.",
)
RANDOM = (
    "Random weights:",
    "these backbones were not pretrained, so differences between families say nothing about "
    "pretraining.",
)


def warnings(sweep: Sweep) -> list[tuple[str, str]]:
    """What must be known before any number is read: a word and its sentence."""
    found = []
    for share, (word, sentence), what in (
        (sweep.synthetic_share, SYNTHETIC, "are of synthetic chips"),
        (sweep.random_share, RANDOM, "begin from random weights"),
    ):
        if share == 1:
            found.append((word, sentence))
        elif share > 0:
            runs = round(share * len(sweep.results))
            found.append((word, f"{runs:,} of {len(sweep.results):,} runs {what}; {sentence}"))
    return found


def lead(study: Study) -> str:
    """One sentence: what the study trained on what."""
    settings = list(dict.fromkeys(SETTING_TITLES.get(s, s) for s, _ in study.scenarios))
    budgets = [b for b in dict.fromkeys(b for _, b in study.scenarios) if b]
    said = study.sweep.study.get("description")
    sentence = (
        f"{_listed([model.name for model in study.models], 4, 'models')} on "
        f"{_many(len(study.regions), 'region')}, settings {_listed(settings, 4, 'settings')}"
    )
    if budgets:
        sentence += f", with {_listed([f'{budget:,}' for budget in sorted(budgets)], 6, 'numbers')}"
        sentence += " labelled chips of the region"
    return f"{said.rstrip('.')}. {sentence}." if isinstance(said, str) else f"{sentence}."


def counts(study: Study) -> list[tuple[str, str]]:
    """What was run, in numbers."""
    results = study.sweep.results
    chips, pixels = 0, 0
    for region in study.regions:
        of_region = [result for result in results if result.cell.region == region]
        chips += len(study.chips(region))
        pixels += int(per_class(of_region[0].confusion)["truth"].sum())
    hours = sum(result.seconds for result in results) / 3600
    seeds = max(len(group.results) for group in study.groups)
    found = [
        ("runs", f"{len(results):,}"),
        ("regions", f"{len(study.regions)}"),
        ("models", f"{len(study.models)}"),
        ("seeds at most", f"{seeds}"),
        ("test chips", f"{chips:,}"),
        ("labelled test pixels", _short(pixels)),
        ("hours of computing", f"{hours:,.1f}"),
    ]
    if study.sweep.failures:
        found.append(("failed cells", f"{len(study.sweep.failures):,}"))
    return found


Finding = tuple[str, str]
"""What a finding is about, and the finding: a sentence with its interval."""


def findings(study: Study, effects: list[Effect], traps: list[TrapEffect]) -> list[Finding]:
    """What came out."""
    return [*_order(study), *_without_labels(study), *_averages(effects), *_worst_trap(traps)]


def reference(study: Study) -> Scenario:
    """The scenario to begin with: the largest numbered budget in distribution, else the last."""
    numbered = [s for s in study.scenarios if s[0] == "id" and s[1] is not None]
    return (numbered or list(study.scenarios))[-1]


def _order(study: Study) -> Iterator[Finding]:
    """Who is best on average over regions, and by how much."""
    scenario, metric = reference(study), "overall_accuracy"
    scored = []
    for model in study.representatives:
        found = [study.at(region, model.name, scenario) for region in study.regions]
        if all(found):
            draws = np.mean([of.draws[metric] for of in found], axis=0)
            scored.append((np.mean([of.value(metric) for of in found]), model, draws))
    if not scored:
        return
    scored.sort(key=lambda of: -of[0])
    value, best, draws = scored[0]
    score = interval(float(value), draws)
    text = f"{best.name} gets {_share(score)} of the pixels right"
    if len(study.regions) > 1:
        text += ", averaged over the regions"
    if len(scored) > 1:
        second, other, theirs = scored[1]
        ahead = interval(float(value - second), draws - theirs)
        text += f": {_points(ahead, signed=False)} more than {other.name}"
    yield f"Best model ({scenario_title(scenario)})", f"{text}."


def _without_labels(study: Study) -> Iterator[Finding]:
    """What the other regions' data alone reaches, beside the smallest budget."""
    small = next((s for s in study.scenarios if s[0] == "id"), None)
    if ("ood", 0) not in study.scenarios or small is None:
        return
    model = study.representatives[0]
    draws, values = [], []
    for region in study.regions:
        found = study.difference(
            region, "overall_accuracy", (model.name, ("ood", 0)), (model.name, small)
        )
        if found is None:
            return
        values.append(found[0])
        draws.append(found[1])
    gain = interval(float(np.mean(values)), np.mean(draws, axis=0))
    side = "above"
    if gain.value < 0:
        side, gain = "below", Interval(-gain.value, -gain.high, -gain.low)
    yield (
        "No label of the region",
        f"{model.name}, trained on the other regions alone, is {_points(gain, signed=False)} of "
        f"overall accuracy {side} what the region’s own labels give it ({scenario_title(small)}).",
    )


def _averages(effects: list[Effect]) -> Iterator[Finding]:
    """How much of the paper's claims the denominator makes, for the first model."""
    pooled = [effect for effect in effects if effect.region is None] or effects
    for claim in dict.fromkeys(effect.claim for effect in pooled):
        effect = next(effect for effect in pooled if effect.claim == claim)
        moving, fixed = effect.score["average_accuracy"], effect.score["present_accuracy"]
        text = (
            f"The average accuracy of {effect.model} changes by {_points(moving)} with the paper’s "
            f"denominator, by {_points(fixed)} over the classes in the labels"
        )
        share = effect.denominator
        if share is not None and share > 0:
            made = "all" if share >= 1 else f"{share:.0%}".replace("%", " %")
            text += f": the denominator makes {made} of the change"
        yield claim.title, f"{text}."


def _worst_trap(traps: list[TrapEffect]) -> Iterator[Finding]:
    pooled = [effect for effect in traps if effect.region is None]
    if pooled:
        worst = max(pooled, key=lambda effect: abs(effect.score["overall_accuracy"].value))
        yield (
            "Traps",
            f"Of {_many(len(pooled), 'trap')}, “{worst.trap}” changes overall accuracy most: by "
            f"{_points(worst.score['overall_accuracy'])}.",
        )


def metric_title(metric: str) -> str:
    """A metric's title within a sentence."""
    title = METRICS[metric]
    return title[0].lower() + title[1:]


def built_as(model: Model) -> str:
    """The words for what a model is built of."""
    return "; ".join(" or ".join(words) for words in model.build.values())


def _share(of: Interval) -> str:
    return f"{of.value:.1%}{_between(of, '{:.1f}')}".replace("%", " %")


def _points(of: Interval, *, signed: bool = True) -> str:
    """A difference in points, with its interval."""
    form = "{:+.1f}" if signed else "{:.1f}"
    return f"{form.format(100 * of.value)} points{_between(of, form)}".replace("-", "−")


def _between(of: Interval, form: str) -> str:
    if np.isnan(of.low):
        return ""
    return f" ({form.format(100 * of.low)} to {form.format(100 * of.high)})"


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(words: list[str], most: int, noun: str) -> str:
    if len(words) > most:
        return f"{len(words)} {noun}"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _short(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,}"
