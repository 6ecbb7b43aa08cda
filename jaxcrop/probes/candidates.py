"""Which backbones a region's chips can be probed with on this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from jaxcrop.config import Family
from jaxcrop.crops import NUM_CLASSES
from jaxcrop.data.bands import BandInput
from jaxcrop.data.reading import Records
from jaxcrop.errors import InputError
from jaxcrop.features.backbones import FrozenBackbone
from jaxcrop.models.segmenter import abstract_segmenter
from jaxcrop.training.beginning import create
from jaxcrop.weights import (
    CATALOGUE,
    band_input,
    default_weights,
    find,
    load_weights,
    published,
    read_manifest,
)
from jaxcrop.weights.catalogue import FAMILY_INPUTS

RAW = "raw bands"
"""The name of the candidate that is no backbone: what every other should beat."""


@dataclass(frozen=True)
class Candidate:
    """Weights that can be probed; `load` reads them when their turn comes.

    `kind` is "published", "converted", "random", "run", or "none" of the raw bands.
    """

    name: str
    kind: str
    family: str
    architecture: str
    band_input: BandInput
    load: Callable[[], FrozenBackbone] = field(repr=False)


def candidates(
    records: Records,
    *,
    weights: Sequence[str] = (),
    families: Sequence[str] = get_args(Family),
    architectures: Sequence[str] = (),
) -> tuple[list[Candidate], list[str]]:
    """The raw bands, and the weights that are named, or else every published set in the cache.

    "random" among `weights` stands for random weights of each family's bands and each of
    `architectures` (ResNet-50 if none is named); of published sets, those of other `families` and
    `architectures` are left out unless they are named. Also returns sentences on what was left out.
    Raises InputError for names that are unknown or not on this machine, and where there is nothing
    to compare.
    """
    found, notes = [], []
    for name in weights or _in_cache(families, architectures):
        if name == "random":
            for family in families:
                found += [_random(family, a) for a in architectures or ("resnet50",)]
        else:
            found.append(_of_name(name))
    if not weights:
        notes += _absent(families, architectures)
        if not found:
            raise InputError(
                f"no pretrained weights of {', '.join(families)} are in the cache: fetch some, "
                f"`python -m weights_convert fetch {_default(families)}`, or try the path with "
                "--weights random"
            )
    usable = []
    for candidate in found:
        missing = [band for band in candidate.band_input.bands if band not in records.bands]
        if missing:
            notes.append(f"{candidate.name} is left out: the records lack {', '.join(missing)}")
        elif candidate.name not in {other.name for other in usable}:
            usable.append(candidate)
    if not usable:
        raise InputError(f"no weights can be compared: {'; '.join(notes)}")
    return [_raw(records.bands), *usable], notes


def _in_cache(families: Sequence[str], architectures: Sequence[str]) -> list[str]:
    return [
        entry.name
        for entry in CATALOGUE.values()
        if entry.family in families
        and (not architectures or entry.architecture in architectures)
        and find(entry.name) is not None
    ]


def _absent(families: Sequence[str], architectures: Sequence[str]) -> list[str]:
    """A sentence for each family of which the cache has no set."""
    return [
        f"no weights of {family} are in the cache: `python -m weights_convert fetch "
        f"{_default([family])}` gets some"
        for family in families
        if not _in_cache([family], architectures)
    ]


def _default(families: Sequence[str]) -> str:
    return default_weights(families[0], "resnet50").name


def _of_name(name: str) -> Candidate:
    """A published set, a folder of converted weights, or a training run's."""
    if name in CATALOGUE:
        folder = find(name)
        if folder is None:
            raise InputError(
                f"{name} is not in the cache: `python -m weights_convert fetch {name}` gets it"
            )
        return _converted(name, "published", folder)
    folder = Path(name)
    if (folder / "config.yaml").is_file():
        return _of_run(folder)
    if not folder.exists():
        published(name)  # names the published sets that come nearest
    return _converted(name, "converted", folder)


def _converted(name: str, kind: str, folder: Path) -> Candidate:
    manifest, seen = read_manifest(folder)
    architecture = manifest["architecture"]

    def load() -> FrozenBackbone:
        model = abstract_segmenter(architecture, "linear", len(seen.bands), NUM_CLASSES)
        load_weights(model, folder)
        return FrozenBackbone.of(model, architecture, seen)

    return Candidate(name, kind, manifest["family"], architecture, seen, load)


def _of_run(folder: Path) -> Candidate:
    from jaxcrop.training.runs import open_run  # noqa: PLC0415 -- most candidates are no runs

    run = open_run(folder)
    chosen = run.config.model

    def load() -> FrozenBackbone:
        return FrozenBackbone.of(run.model(), chosen.architecture, run.band_input)

    return Candidate(str(folder), "run", chosen.backbone, chosen.architecture, run.band_input, load)


def _random(family: str, architecture: str) -> Candidate:
    # Families of the same bands must not have the same random weights.
    seed = list(FAMILY_INPUTS).index(family)
    seen = band_input(family)

    def load() -> FrozenBackbone:
        model = create(family, architecture, decoder="linear", weights="random", seed=seed)
        return FrozenBackbone.of(model, architecture, seen)

    return Candidate(f"random-{family}-{architecture}", "random", family, architecture, seen, load)


def _raw(bands: Sequence[str]) -> Candidate:
    backbone = FrozenBackbone.raw(bands)
    return Candidate(RAW, "none", "none", "none", backbone.band_input, lambda: backbone)
