"""Everything that a report says, derived from a sweep once."""

from typing import NamedTuple

from jaxcrop.reports.families import Comparison, compare
from jaxcrop.reports.labels import Worth, labels_worth
from jaxcrop.reports.policies import Effect, effects
from jaxcrop.reports.study import Study, studied
from jaxcrop.reports.sweep import Sweep
from jaxcrop.reports.traps import TrapEffect, trap_effects


class Analysis(NamedTuple):
    """A study and what follows from it; page, figures and tables are made of this alone."""

    study: Study
    effects: list[Effect]
    traps: list[TrapEffect]
    comparison: Comparison
    worth: Worth


def analysed(sweep: Sweep) -> Analysis:
    """Derive everything from a sweep as far as it has come."""
    study = studied(sweep)
    return Analysis(study, effects(study), trap_effects(study), compare(study), labels_worth(study))
