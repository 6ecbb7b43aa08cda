"""`python -m jaxcrop.recommend --data DIR`: which weights to use here, and how many labels."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import tyro

from jaxcrop.cli import exit_on_input_error
from jaxcrop.config import ARCHITECTURE_TITLES, DeviceConfig, Family
from jaxcrop.errors import InputError
from jaxcrop.files import replacing, writing


@dataclass(frozen=True)
class RecommendConfig:
    """Rank pretrained weights on a region by cheap probes of their frozen features, and say what
    more labels would bring.

    For each budget and seed, a classifier is fitted to sampled pixels of so many labelled chips and
    scored on test chips. Nothing is trained and nothing downloaded.
    """

    data: Path
    """Folder of built records (`python -m jaxcrop.data build`), or one above it."""
    region: str | None = None
    """Region, or dataset, where the folder holds records of several."""
    variant: str = "standard"
    """Variant of the records."""
    families: tuple[Family, ...] = get_args(Family)
    """Families of weights to compare."""
    architectures: tuple[Literal[tuple(ARCHITECTURE_TITLES)], ...] = ()  # type: ignore[valid-type]
    """Architectures to compare (default: all that are in the cache)."""
    weights: tuple[str, ...] = ()
    """Weights to compare: names of published sets, folders of converted weights or of training
    runs, or `random`, for a trial (default: every published set in the cache)."""
    budgets: tuple[int, ...] = (5, 10, 20, 50, 100)
    """Numbers of labelled chips."""
    seeds: int = 5
    """How often the labelled chips of each budget are drawn."""
    splits: str = "blocked"
    """How training and test chips are divided: in `blocked` groups of neighbours, at `random`, as
    they were `built`, or as the lists in a folder say."""
    test_chips: int = 200
    """Test chips at most."""
    probe: Literal["logistic", "knn"] = "logistic"
    """Logistic regression, its penalty cross-validated, or the 20 nearest neighbours."""
    metric: Literal["overall_accuracy", "present_accuracy"] = "overall_accuracy"
    """What ranks: accuracy over pixels (OA), or its average over the classes in the labels (AA)."""
    target: float | None = None
    """A score, as in 0.9, to say how many labelled chips it would take."""
    out: Path | None = None
    """JSON file to write."""
    picture: Path | None = None
    """PNG or PDF of the learning curves to write."""
    features: Path | None = None
    """Folder that keeps features for the next time (default: features/ in the cache folder)."""

    def __post_init__(self):
        if self.target is not None and not 0 < self.target < 1:
            raise InputError(f"--target must be above 0 and below 1, not {self.target}")


def main(argv: Sequence[str] | None = None) -> None:
    """Compare as the arguments say, and print the recommendation."""
    with exit_on_input_error():
        config = tyro.cli(RecommendConfig, args=argv, prog="python -m jaxcrop.recommend")
        recommend(config)


def recommend(config: RecommendConfig) -> None:
    """Probe every candidate, print ranking and learning curve, write the files asked for.

    Raises InputError where records or weights are missing, and where the chips cannot be divided.
    """
    # Heavy imports wait until the arguments are known to be right: --help answers at once.
    from jaxcrop.features.store import FeatureStore  # noqa: PLC0415
    from jaxcrop.figures import check_picture_path, save_figure  # noqa: PLC0415
    from jaxcrop.mesh import prepare_devices  # noqa: PLC0415
    from jaxcrop.probes.candidates import candidates  # noqa: PLC0415
    from jaxcrop.probes.picture import curves_figure  # noqa: PLC0415
    from jaxcrop.probes.recommendation import as_json, judge  # noqa: PLC0415
    from jaxcrop.probes.study import design, find_region, probe  # noqa: PLC0415
    from jaxcrop.probes.wording import text  # noqa: PLC0415
    from jaxcrop.training.logging import message, progress_line  # noqa: PLC0415
    from jaxcrop.training.provenance import provenance  # noqa: PLC0415

    if config.out is not None and not (config.out.suffix == ".json" and config.out.parent.is_dir()):
        raise InputError(f"--out {config.out} must end in .json and lie in an existing folder")
    if config.picture is not None:
        check_picture_path(config.picture)
    prepare_devices(DeviceConfig())
    records = find_region(config.data, config.region, config.variant)
    study = design(
        records,
        budgets=config.budgets,
        seeds=config.seeds,
        by=config.splits,
        test_chips=config.test_chips,
    )
    compared, notes = candidates(
        records,
        weights=config.weights,
        families=config.families,
        architectures=config.architectures,
    )
    title = (
        f"{'synthetic ' * records.synthetic}{records.name} {records.version}: "
        f"{study.pool} training chips, {len(study.test)} test chips, splits {config.splits}"
    )
    print(title)
    for note in [*study.notes, *notes]:
        print(f"Note: {note}.")
    store = FeatureStore(config.features) if config.features else FeatureStore.default()
    per_chip = {}
    for number, candidate in enumerate(compared, start=1):
        step = f"[{number}/{len(compared)}] "
        message(f"{step}{candidate.name}")
        per_chip[candidate.name] = probe(
            candidate,
            study,
            how=config.probe,
            store=store,
            say=lambda text, last, step=step: progress_line(step + text, last),
        )
    found = judge(
        per_chip,
        {candidate.name: candidate.kind for candidate in compared},
        budgets=study.budgets,
        places=study.places,
        pool=study.pool,
        metric=config.metric,
    )
    print(f"\n{text(found, config.target)}")
    print(f"Features kept for the next time: {store.size / 1e9:.1f} GB in {store.folder}")
    if records.synthetic:
        print("Beware: the chips are synthetic, and say nothing of real crops.")
    if config.out is not None:
        content = {
            "dataset": records.name,
            "variant": records.variant,
            "version": records.version,
            "synthetic": records.synthetic,
            "splits": config.splits,
            "probe": config.probe,
            **as_json(found),
            "notes": [*study.notes, *notes],
            **provenance(),
        }
        with writing(config.out.parent), replacing(config.out) as draft:
            draft.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        print(f"written: {config.out}")
    if config.picture is not None:
        save_figure(curves_figure(found, title), config.picture)
        print(f"written: {config.picture}")


if __name__ == "__main__":
    main()
