"""How fast records are built, and read beside torchgeo's intersection of chips and label maps.

    python experiments/benchmarks/records.py --chips 256

Draws synthetic chips of North America, builds their records, and then alternates the two ways of
reading the same chips in random order as batches of 16, two workers each: records through grain,
and GeoTIFFs through torchgeo's `RasterDataset` (needs the `torch` extra). Prints chips per second,
and the median of the ratios.
"""

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

from jaxcrop.data.bands import PUBLISHED_BANDS, SENTINEL2_BANDS, BandInput

BATCH = 16
ROUNDS = 5
ALL_BANDS = BandInput(SENTINEL2_BANDS, (0.0,) * 13, (10_000.0,) * 13, clip=False)


def building(source: Path, out: Path, chips: int) -> float:
    """Chips built per second."""
    from jaxcrop_datasets.cdl.cdl_dataset_builder import Builder  # noqa: PLC0415
    from jaxcrop_datasets.crop_chips import build_records  # noqa: PLC0415

    began = time.perf_counter()
    build_records(Builder, source, out)
    return chips / (time.perf_counter() - began)


def record_batches(out: Path) -> Iterator:
    """Endless batches of our records in random order."""
    from jaxcrop.data.reading import find_records, training_batches  # noqa: PLC0415

    chips = find_records(out, "cdl").chips("train", ALL_BANDS)
    return training_batches(chips, BATCH, seed=0)


def torchgeo_batches(source: Path) -> Iterator:
    """Endless batches of the same chips in random order, each read with its labels by torchgeo."""
    from torch.utils.data import DataLoader  # noqa: PLC0415
    from torchgeo.datasets import RasterDataset, stack_samples  # noqa: PLC0415
    from torchgeo.samplers import PreChippedGeoSampler  # noqa: PLC0415

    class Chips(RasterDataset):
        filename_glob = "*.tif"
        all_bands = PUBLISHED_BANDS
        separate_files = False

    class Labels(RasterDataset):
        filename_glob = "*.tif"
        is_image = False
        cmap: ClassVar = {}

    chips = Chips(str(source / "chips"), bands=SENTINEL2_BANDS)
    labels = Labels(str(source / "labels"))
    both = chips & labels
    loader = DataLoader(
        both,
        batch_size=BATCH,
        sampler=PreChippedGeoSampler(both, shuffle=True),
        num_workers=2,
        persistent_workers=True,
        collate_fn=stack_samples,
    )
    while True:
        yield from loader


def speed(batches: Iterator, count: int) -> float:
    """Chips per second over `count` batches, after one that starts the workers."""
    next(batches)
    began = time.perf_counter()
    for _ in itertools.islice(batches, count):
        pass
    return count * BATCH / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", type=int, default=256, help="how many chips to draw")
    options = parser.parse_args()
    from jaxcrop.data.synthetic import write_region  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "records"
        write_region(source, "north-america", options.chips, seed=0)
        rates = []
        for _ in range(ROUNDS):
            rates.append(building(source, out, options.chips))
            size = sum(path.stat().st_size for path in out.rglob("*.array_record*"))
            if len(rates) < ROUNDS:
                shutil.rmtree(out)
        print(
            f"building: {statistics.median(rates):.0f} chips/s ({min(rates):.0f} to "
            f"{max(rates):.0f}), {size / options.chips / 1e6:.2f} MB each",
            flush=True,
        )
        readers: dict[str, Callable[[], Iterator]] = {
            "records": lambda: record_batches(out),
            "torchgeo": lambda: torchgeo_batches(source),
        }
        open_readers = {name: reader() for name, reader in readers.items()}
        rounds = [
            (speed(open_readers["records"], 40), speed(open_readers["torchgeo"], 4))
            for _ in range(ROUNDS)
        ]
        ratios = [ours / theirs for ours, theirs in rounds]
        ours, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"reading: records {ours:.0f} chips/s, torchgeo {theirs:.0f} chips/s, "
            f"{statistics.median(ratios):.1f} times as many ({min(ratios):.1f} to "
            f"{max(ratios):.1f})"
        )


if __name__ == "__main__":
    main()
