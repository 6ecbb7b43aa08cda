"""`python -m jaxcrop.data`: build the records of a dataset, or draw a synthetic region."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxcrop.cli import exit_on_input_error
from jaxcrop.data.build import build
from jaxcrop.data.paths import default_data_dir
from jaxcrop.regions import REGIONS


@dataclass(frozen=True)
class Build:
    """Build the records of a dataset from chips/*.tif and labels/*.tif."""

    dataset: tyro.conf.Positional[str]
    """Name of the dataset, as in `sact`."""
    source: Path
    """Folder that holds chips/ and labels/."""
    data_dir: Path | None = None
    """Folder that receives the records (default: $JAXCROP_DATA_DIR, else ~/.cache/jaxcrop/data)."""

    def run(self) -> None:
        build(self.dataset, self.source, self.data_dir or default_data_dir())


@dataclass(frozen=True)
class Synthetic:
    """Draw a synthetic region: GeoTIFF chips and labels that were never measured."""

    region: Literal[tuple(REGIONS)]  # type: ignore[valid-type]
    """Region to imitate."""
    out: Path
    """Folder that receives chips/ and labels/."""
    chips: int = 64
    """How many chips of 256 x 256 pixels."""
    seed: int = 0
    """The same seed draws the same pixels."""

    def run(self) -> None:
        # rasterio is slow to import: --help does without.
        from jaxcrop.data.synthetic import write_region  # noqa: PLC0415

        write_region(self.out, self.region, self.chips, self.seed)
        print(f"{self.chips} synthetic chips of {self.region} in {self.out}")


def main(argv: Sequence[str] | None = None) -> None:
    """Build records, or draw a synthetic region, as the arguments say."""
    with exit_on_input_error():
        verb = tyro.cli(
            Annotated[Build, tyro.conf.subcommand(name="build")]
            | Annotated[Synthetic, tyro.conf.subcommand(name="synthetic")],
            prog="python -m jaxcrop.data",
            description=__doc__,
            args=argv,
        )
        verb.run()


if __name__ == "__main__":
    main()
