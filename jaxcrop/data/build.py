"""Building the records of a dataset by its name: a folder of `jaxcrop_datasets`."""

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from jaxcrop.errors import InputError


def dataset_names() -> list[str]:
    """Names of the datasets that have a builder."""
    (package,) = find_spec("jaxcrop_datasets").submodule_search_locations
    return sorted(path.parent.name for path in Path(package).glob("*/*_dataset_builder.py"))


def builder_class(dataset: str) -> type:
    """The TFDS builder of `dataset`. Raises InputError where it is unknown, naming all."""
    names = dataset_names()
    if dataset not in names:
        raise InputError(f"no dataset is called {dataset}: choose one of {', '.join(names)}")
    # TFDS and rasterio are slow to import: an unknown name is answered without.
    return importlib.import_module(f"jaxcrop_datasets.{dataset}.{dataset}_dataset_builder").Builder


def build(
    dataset: str,
    source: Path,
    data_dir: Path,
    *,
    variant: str = "standard",
    on_error: Literal["stop", "skip"] = "stop",
    beam_options: str | None = None,
) -> None:
    """Build the records of `dataset` from the folder `source` into `data_dir`; print their number.

    Nothing stays in `data_dir` of a build that fails. Raises InputError for an unknown dataset or
    variant, for bad input, for records that exist already and a folder that cannot be written.
    """
    builder = builder_class(dataset)
    from jaxcrop_datasets.crop_chips import REPORT, build_records  # noqa: PLC0415

    info = build_records(
        builder, source, data_dir, variant=variant, on_error=on_error, beam_options=beam_options
    ).info
    kind = "synthetic chips" if info.metadata["synthetic"] else "chips"
    for name, split in info.splits.items():
        print(f"{name}: {split.num_examples} {kind}")
    if info.metadata["left_out"]:
        print(f"left out: {info.metadata['left_out']} files, see {Path(info.data_dir) / REPORT}")
    print(info.data_dir)
