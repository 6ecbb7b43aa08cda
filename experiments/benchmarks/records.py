"""How fast records are built, and read beside torchgeo's intersection of chips and label maps.

    python experiments/benchmarks/records.py --chips 256

Draws synthetic chips of North America, builds their records, and then alternates the two ways of
reading the same chips in random order as batches of 16, two workers each: records through grain,
and GeoTIFFs through torchgeo's `RasterDataset` (needs the `torch` extra). Twice: with chips and
label maps as torchgeo likes them best, uncompressed and pixel upon pixel; and as published,
compressed chips under a label map of 30 m in its own projection (CDL's, EPSG:5070). Prints chips
per second, and the median of the ratios.
"""

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from jaxcrop.data.bands import PUBLISHED_BANDS, SENTINEL2_BANDS, BandInput

BATCH = 16
ROUNDS = 5
ALL_BANDS = BandInput.scaled(SENTINEL2_BANDS)


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
    from jaxcrop.data.sampling import Sampling  # noqa: PLC0415

    chips = find_records(out, "cdl").chips("train", ALL_BANDS)
    sampling = Sampling(len(chips), BATCH, seed=0)
    return training_batches(chips, sampling, range(1 << 30))


def torchgeo_batches(source: Path) -> Iterator:
    """Endless batches of the same chips in random order, each read with its labels by torchgeo."""
    from weights_convert.originals import import_torchvision  # noqa: PLC0415

    import_torchvision()
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


def as_published(source: Path, out: Path) -> None:
    """The chips compressed, and their label maps as one of 30 m in CDL's projection."""
    import numpy as np  # noqa: PLC0415
    import rasterio  # noqa: PLC0415
    from rasterio.merge import merge  # noqa: PLC0415
    from rasterio.warp import calculate_default_transform, reproject  # noqa: PLC0415

    (out / "chips").mkdir(parents=True)
    (out / "labels").mkdir()
    for path in (source / "chips").iterdir():
        with rasterio.open(path) as file:
            profile = file.profile
            profile.update(compress="deflate", predictor=2, tiled=True)
            profile.update(blockxsize=256, blockysize=256)
            with rasterio.open(out / "chips" / path.name, "w", **profile) as copy:
                copy.write(file.read())
                copy.descriptions = file.descriptions
                copy.update_tags(**file.tags())
    codes, transform = merge(sorted((source / "labels").iterdir()))
    bounds = rasterio.transform.array_bounds(*codes.shape[1:], transform)
    where, width, height = calculate_default_transform(
        "EPSG:32615", "EPSG:5070", codes.shape[2], codes.shape[1], *bounds, resolution=30
    )
    national = np.zeros((height, width), np.uint8)
    reproject(
        codes[0],
        national,
        src_transform=transform,
        src_crs="EPSG:32615",
        dst_transform=where,
        dst_crs="EPSG:5070",
    )
    profile = {"count": 1, "dtype": "uint8", "height": height, "width": width, "tiled": True}
    with rasterio.open(
        out / "labels" / "2023_30m_cdls.tif",
        "w",
        crs="EPSG:5070",
        transform=where,
        compress="deflate",
        **profile,
    ) as file:
        file.write(national, 1)


def speed(batches: Iterator, count: int) -> float:
    """Chips per second over `count` batches, after one that starts the workers."""
    next(batches)
    began = time.perf_counter()
    for _ in itertools.islice(batches, count):
        pass
    return count * BATCH / (time.perf_counter() - began)


def compare(name: str, source: Path, out: Path, chips: int) -> None:
    """Build the records of a source, read both ways, and print."""
    rates = []
    for _ in range(ROUNDS):
        shutil.rmtree(out, ignore_errors=True)
        rates.append(building(source, out, chips))
    print(
        f"{name}, building: {statistics.median(rates):.0f} chips/s ({min(rates):.0f} to "
        f"{max(rates):.0f})",
        flush=True,
    )
    ours, theirs = record_batches(out), torchgeo_batches(source)
    rounds = []
    for _ in range(ROUNDS + 1):
        rounds.append((speed(ours, 40), speed(theirs, 8)))
        time.sleep(3)  # torchgeo's workers read ahead: let them finish
    del rounds[0]  # it warms both
    ratios = [one / other for one, other in rounds]
    one, other = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"{name}, reading: records {one:.0f} chips/s, torchgeo {other:.0f} chips/s, "
        f"{statistics.median(ratios):.1f} times as many ({min(ratios):.1f} to {max(ratios):.1f})",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", type=int, default=256, help="how many chips to draw")
    options = parser.parse_args()
    from jaxcrop.data.synthetic import write_region  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        drawn, published = Path(folder) / "drawn", Path(folder) / "published"
        write_region(drawn, "north-america", options.chips, seed=0)
        as_published(drawn, published)
        for name, source in (("as published", published), ("uncompressed, same grid", drawn)):
            compare(name, source, Path(folder) / "records", options.chips)


if __name__ == "__main__":
    main()
