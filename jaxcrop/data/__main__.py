"""`python -m jaxcrop.data`: from label maps and scenes to records, and what the records hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from jaxcrop.cli import exit_on_input_error
from jaxcrop.data.build import build, builder_class
from jaxcrop.data.paths import default_data_dir
from jaxcrop.regions import REGIONS

Dataset = tyro.conf.Positional[str]


@dataclass(frozen=True)
class Fetch:
    """Download the label maps of a dataset, or its published chips and labels."""

    dataset: Dataset
    """Name of the dataset: agrifieldnet, cdl, eurocrops, nccm, sact or sas."""
    out: Path
    """Folder that receives labels/, or with --published the layout of the published chips."""
    names: tuple[str, ...] | None = None
    """The provider's files to get, by year or country (default: that of the study)."""
    published: bool = False
    """Get the harmonised chips of torchgeo/harmonized_global_crops."""

    def run(self) -> None:
        builder = builder_class(self.dataset)
        from jaxcrop_datasets.fetch import fetch  # noqa: PLC0415

        fetch(builder, self.out, self.names, published=self.published)


@dataclass(frozen=True)
class Cut:
    """Cut chips of 256 x 256 pixels from Sentinel-2 products where the label maps have crops."""

    dataset: Dataset
    """Name of the dataset whose codes the label maps hold."""
    scenes: Path
    """Folder of products: SAFE folders, or folders of band GeoTIFFs."""
    labels: Path
    """Folder of label maps: GeoTIFFs, or polygons (GeoPackage, Shapefile, GeoParquet)."""
    out: Path
    """Folder that receives chips/ and labels/; the same command goes on where it was broken off."""
    chips: int = 1000
    """How many chips at most."""
    dates: int = 1
    """How many dates of each, the least cloudy."""
    year: int | None = None
    """Year in the chips' names (default: that of the dataset's labels)."""
    seed: int = 0
    """The same seed chooses the same places."""

    def run(self) -> None:
        builder = builder_class(self.dataset)
        from jaxcrop_datasets.cutting import cut  # noqa: PLC0415

        made = cut(
            self.scenes,
            self.labels,
            self.out,
            builder.code_table("standard"),
            field=builder.CODE_FIELD,
            year=self.year or builder.YEAR,
            chips=self.chips,
            dates=self.dates,
            seed=self.seed,
        )
        print(f"{made} chips in {self.out}")


@dataclass(frozen=True)
class Build:
    """Build the records of a dataset from chips/ and labels/, or from the published layout."""

    dataset: Dataset
    """Name of the dataset, as in `sact`."""
    source: Path
    """Folder that holds chips/ and labels/, or the published layout."""
    data_dir: Path | None = None
    """Folder that receives the records (default: $JAXCROP_DATA_DIR, else ~/.cache/jaxcrop/data)."""
    variant: str = "standard"
    """Which classes the codes have and whether the radiometric offset is removed: `paper-raw` does
    as the paper did."""
    on_error: Literal["stop", "skip"] = "stop"
    """Stop at files that cannot be read, naming each, or leave them out and list them."""
    beam_pipeline_options: str | None = None
    """Options of Apache Beam, whose workers then build: "--runner=DirectRunner
    --direct_num_workers=2"."""

    def run(self) -> None:
        build(
            self.dataset,
            self.source,
            self.data_dir or default_data_dir(),
            variant=self.variant,
            on_error=self.on_error,
            beam_options=self.beam_pipeline_options,
        )


@dataclass(frozen=True)
class _OfRecords:
    dataset: Dataset
    """Name of the dataset."""
    out: Path
    """What to write."""
    data_dir: Path | None = None
    """Folder of the built records (default: $JAXCROP_DATA_DIR, else ~/.cache/jaxcrop/data)."""
    variant: str = "standard"
    """Variant of the records."""

    def records(self):
        """The records that the arguments name. Raises InputError where they are not built."""
        from jaxcrop.data.loading import built_records  # noqa: PLC0415

        return built_records(self.dataset, self.data_dir, self.variant)


@dataclass(frozen=True)
class Card(_OfRecords):
    """Write the dataset card: Markdown, JSON and pictures of what the records hold."""

    splits: str = "built"
    """How the chips are divided: as they were `built`, at `random`, in `blocked` groups of
    neighbours, or as the lists in a folder say, the paper's or those of `split`."""

    def run(self) -> None:
        from jaxcrop.data.card import write_card  # noqa: PLC0415

        print(write_card(self.records(), self.out, self.splits))


@dataclass(frozen=True)
class Show(_OfRecords):
    """Draw a chip: true colour, false colour, classes."""

    split: str = "train"
    """Split of the chip."""
    index: int = 0
    """Its place in the split."""

    def run(self) -> None:
        from jaxcrop.data.show import show  # noqa: PLC0415

        show(self.records(), self.split, self.index, self.out)
        print(self.out)


@dataclass(frozen=True)
class Split(_OfRecords):
    """Write lists of the chips of train, validation and test, drawn anew."""

    method: Literal["random", "blocked"] = "blocked"
    """By chip, or by blocks of neighbouring chips."""
    block_km: float = 20.0
    """Width of a block."""
    seed: int = 0
    """The same seed draws the same lists."""

    def run(self) -> None:
        from jaxcrop.data import splits  # noqa: PLC0415
        from jaxcrop.data.chip_lists import write_lists  # noqa: PLC0415
        from jaxcrop.data.index import index_of  # noqa: PLC0415

        index = index_of(self.records())
        if self.method == "random":
            partition = splits.random_split(index, self.seed)
        else:
            partition = splits.blocked_split(index, self.block_km, self.seed)
        write_lists(partition, self.out)
        touching, apart = splits.adjacency(index, partition)
        sizes = ", ".join(f"{name} {len(ids)}" for name, ids in partition.items())
        print(
            f"{sizes}; test chips beside a training chip: {touching}, the nearest: {apart:.1f} km"
        )


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
    """Do what the arguments say with the files or records of a dataset."""
    verbs = (Fetch, Cut, Build, Card, Show, Split, Synthetic)
    with exit_on_input_error():
        verb = tyro.extras.subcommand_cli_from_dict(
            {verb.__name__.lower(): verb for verb in verbs},
            prog="python -m jaxcrop.data",
            description=__doc__,
            args=argv,
        )
        verb.run()


if __name__ == "__main__":
    main()
