"""Parameter groups: which learn, and how fast, by patterns over their names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxcrop.config import TuningConfig
from jaxcrop.errors import InputError

_BIASES = r"backbone\..*bias"
_STEM = re.compile(r"backbone\.(conv1|bn1|patch_embed|patch_norm|cls_token|pos_embed)\b.*")
_PART = re.compile(r"backbone\.(layer|blocks\.|stages\.|merges\.)(\d+)\..*")
_STAGES = 4


class Group(NamedTuple):
    """Parameters that learn at `rate` times the learning rate; at 0 they are frozen."""

    name: str
    rate: float
    parameters: tuple[str, ...]


def parameter_groups(names: Iterable[str], config: TuningConfig) -> tuple[Group, ...]:
    """The groups of the parameters called `names`: each is in exactly one, none is empty.

    The patterns of `--rates` come first, then those of `--tune`, then the decoder with its neck.
    Raises InputError for a pattern or rate that cannot be read or has no parameter.
    """
    left = list(names)
    groups = []
    for text in config.rates:
        pattern, _, number = text.rpartition("=")
        try:
            matches, rate = re.compile(pattern).fullmatch, float(number)
        except (re.error, ValueError) as error:
            raise InputError(f"--rates {text} is no PATTERN=RATE: {error}") from error
        taken = tuple(name for name in left if matches(name))
        if not taken or not pattern or rate < 0:
            raise InputError(
                f"--rates {text} fits no parameter, or its rate is below 0: patterns fit whole "
                f"names, as {left[0] if left else 'backbone.*'}"
            )
        groups.append(Group(pattern, rate, taken))
        left = [name for name in left if name not in taken]
    backbone = [name for name in left if name.startswith("backbone.")]
    for name, rate, parameters in _backbone(backbone, config):
        groups.append(Group(name, rate, tuple(parameters)))
    groups.append(Group("decoder", 1.0, tuple(n for n in left if not n.startswith("backbone."))))
    return tuple(group for group in groups if group.parameters)


def _backbone(names: Sequence[str], config: TuningConfig) -> Iterable[tuple[str, float, list[str]]]:
    if config.tune == "full":
        yield "backbone", 1.0, list(names)
    elif config.tune == "discriminative":
        stages: dict[int, list[str]] = {}
        for name, stage in _stages(names).items():
            stages.setdefault(stage, []).append(name)
        for stage in sorted(stages):
            title = f"stage {stage}" if stage else "stem"
            yield title, config.stage_decay ** (_STAGES - stage), stages[stage]
    elif config.tune == "bitfit":
        biases = [name for name in names if re.fullmatch(_BIASES, name)]
        yield "backbone's biases", 1.0, biases
        yield "backbone's others", 0.0, [name for name in names if name not in biases]
    else:
        yield "backbone", 0.0, list(names)


def _stages(names: Sequence[str]) -> dict[str, int]:
    """The stage of the backbone that each parameter belongs to: 1 to 4, 0 for the stem.

    A ViT's are the quarters of its blocks; what stands behind all blocks is of the last.
    """
    parts = {name: _PART.fullmatch(name) for name in names}
    blocks = 1 + max((int(part[2]) for part in parts.values() if part), default=0)

    def stage(name: str) -> int:
        if _STEM.fullmatch(name):
            return 0
        part = parts[name]
        if part is None:
            return _STAGES
        kind, number = part[1], int(part[2])
        if kind == "layer":
            return number
        return 1 + (number * _STAGES // blocks if kind == "blocks." else number)

    return {name: stage(name) for name in names}


def describe(groups: Sequence[Group], sizes: Mapping[str, int]) -> str:
    """A line for each group: how many parameters it has, and its share of the learning rate."""
    width = max(len(group.name) for group in groups)
    return "\n".join(
        f"  {group.name:<{width}}  {sum(sizes[name] for name in group.parameters):>11,} parameters"
        f"  {f'rate x {group.rate:g}' if group.rate else 'frozen'}"
        for group in groups
    )
