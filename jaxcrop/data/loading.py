"""Built records by the name of their region or dataset."""

from collections.abc import Sequence
from pathlib import Path

from jaxcrop.data.bands import BandInput
from jaxcrop.data.build import dataset_names
from jaxcrop.data.paths import default_data_dir
from jaxcrop.data.reading import Chip, InMonths, LeastCloudy, Records, find_records
from jaxcrop.errors import InputError
from jaxcrop.regions import REGIONS

_ONE_DATE = LeastCloudy()


def built_records(
    name: str, data_dir: str | Path | None = None, variant: str = "standard"
) -> Records:
    """The newest records of a region or dataset below `data_dir`.

    Raises InputError where there are none, naming what builds them or the names that there are.
    """
    dataset = REGIONS[name].dataset if name in REGIONS else name
    data_dir = default_data_dir() if data_dir is None else Path(data_dir)
    records = find_records(data_dir, dataset, variant)
    if records is not None:
        return records
    names = dataset_names()
    if dataset not in names:
        raise InputError(
            f"no dataset is called {name}: choose one of {', '.join(names)}, or of the regions "
            f"{', '.join(REGIONS)}"
        )
    raise InputError(
        f"{data_dir} holds no records of {dataset}, variant {variant}: build them with "
        f"`python -m jaxcrop.data build {dataset} --source DIR`"
    )


def load(
    name: str,
    split: str = "train",
    *,
    bands: Sequence[str] | None = None,
    dates: LeastCloudy | InMonths = _ONE_DATE,
    variant: str = "standard",
    data_dir: str | Path | None = None,
) -> Sequence[Chip]:
    """The chips of a region ("africa") or dataset ("sact"), read when they are asked for.

    `split` is train, validation or test as the records were built, or a part of one as TFDS writes
    it, "train[:100]": the stored order is a random one, and 10 chips are among 100. `bands` names
    the bands of `Chip.image` in their order (default: all that the records have); `dates` chooses
    among several. `variant` and `data_dir` are those of `python -m jaxcrop.train`.

    A chip's image is uint16 (h, w, band), digital numbers; its label uint8 (h, w), the classes of
    `jaxcrop.crops`. Raises InputError where records, split or a band are missing.
    """
    records = built_records(name, data_dir, variant)
    wanted = BandInput.scaled(records.bands if bands is None else bands)
    return records.chips(split, wanted, dates)
