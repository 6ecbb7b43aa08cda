"""Synthetic regions whose chips are small, for tests in which their number counts."""

from pathlib import Path
from unittest import mock

from jaxcrop.data import synthetic
from jaxcrop.data.build import build, builder_class
from jaxcrop.regions import REGIONS


def build_small_region(
    source: Path, data_dir: Path, region: str, *, chips: int, seed: int, side: int = 64
) -> None:
    """Draw a region in `source` and build its records in `data_dir`, as users do.

    Its chips have `side` x `side` pixels in place of 256 x 256.
    """
    dataset = REGIONS[region].dataset
    with (
        mock.patch.object(synthetic, "CHIP", side),
        mock.patch.object(builder_class(dataset), "SIZE", side),
    ):
        synthetic.write_region(source, region, chips, seed)
        build(dataset, source, data_dir)
