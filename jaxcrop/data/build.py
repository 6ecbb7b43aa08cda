"""Building the records of a dataset by its name: a folder of `jaxcrop_datasets`."""

import importlib
from importlib.util import find_spec
from pathlib import Path

from jaxcrop.errors import InputError


def dataset_names() -> list[str]:
    """Names of the datasets that have a builder."""
    (package,) = find_spec("jaxcrop_datasets").submodule_search_locations
    return sorted(path.parent.name for path in Path(package).glob("*/*_dataset_builder.py"))


def build(dataset: str, source: Path, data_dir: Path) -> None:
    """Build the records of `dataset` from the folder `source` into `data_dir`; print their number.

    Nothing stays in `data_dir` of a build that fails. Raises InputError for an unknown dataset, for
    bad input, for records that exist already and for a folder that cannot be written.
    """
    names = dataset_names()
    if dataset not in names:
        raise InputError(f"no dataset is called {dataset}: choose one of {', '.join(names)}")
    # TFDS and rasterio are slow to import: an unknown name is answered without.
    from jaxcrop_datasets.crop_chips import build_records  # noqa: PLC0415

    module = importlib.import_module(f"jaxcrop_datasets.{dataset}.{dataset}_dataset_builder")
    info = build_records(module.Builder, source, data_dir).info
    kind = "synthetic chips" if info.metadata["synthetic"] else "chips"
    for name, split in info.splits.items():
        print(f"{name}: {split.num_examples} {kind}")
    print(info.data_dir)
