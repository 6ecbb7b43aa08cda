"""Train on real, field-labelled Sentinel-2 pixels, and map a real scene.

    python experiments/real/train_and_map.py up_india FOLDER --out runs/up-india
    python experiments/real/train_and_map.py pastis FOLDER --out runs/pastis

`up_india`: 256-pixel tiles of four bands and masks of surveyed wheat and mustard parcels in Uttar
Pradesh, cut to the 64-pixel pieces that hold a parcel; then the whole scene is mapped. `pastis`:
the 24-pixel sub-patches of PASTIS (.npz), the date nearest to 1 July, mirrored out to 64 pixels;
they come without a place, so there is nothing to map. Both are tiny: they show that the path takes
real pixels, not how well it maps crops.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import rasterio
import tensorflow_datasets as tfds
import tyro
from jaxcrop_datasets.crop_chips import CropChips, build_records, variants
from rasterio.transform import Affine, from_origin

from jaxcrop.cli import exit_on_input_error
from jaxcrop.config import ARCHITECTURE_TITLES, TrainConfig
from jaxcrop.crops import IGNORE, MAIZE, OTHER, SOYBEAN, WHEAT
from jaxcrop.data.reading import find_records
from jaxcrop.errors import InputError
from jaxcrop.predict import PredictConfig, predict
from jaxcrop.training.loop import train
from jaxcrop.training.runs import create_model, start_run
from jaxcrop.training.scores import score_run
from jaxcrop.weights import band_input


class SmallChips(CropChips, skip_registration=True):
    """What the two datasets have in common."""

    SIZE = 64
    BUILDER_CONFIGS: ClassVar = variants("standard")
    HOMEPAGE = ""
    LICENSE = ""
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    pkg_dir_path = Path(__file__).parent


class UpIndia(SmallChips, skip_registration=True):
    """Tiles of four bands, with masks of wheat and mustard parcels; 0 is not labelled."""

    name = "up_india"
    BANDS = FILE_BANDS = ("B02", "B03", "B04", "B08")
    CODES: ClassVar = {0: ("not labelled", IGNORE), 1: ("wheat", WHEAT), 2: ("mustard", OTHER)}
    YEAR, DAY = 2026, "02-01"


class Pastis(SmallChips, skip_registration=True):
    """Sub-patches of ten bands, with the crop classes of PASTIS."""

    name = "pastis"
    BANDS = FILE_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
    CODES: ClassVar = {
        code: (
            f"PASTIS class {code}",
            {0: IGNORE, 2: WHEAT, 3: MAIZE, 11: WHEAT, 15: SOYBEAN, 19: IGNORE}.get(code, OTHER),
        )
        for code in range(20)
    }
    YEAR, DAY = 2019, "07-01"


def write_up_india(given: Path, source: Path) -> None:
    """Cut the tiles to the pieces of 64 x 64 pixels in which a parcel lies.

    The cuts begin at column 48, which leaves wheat and mustard in each of four pieces.
    """
    for mask in sorted((given / "masks").glob("*.tif")):
        name = mask.stem.removesuffix("_mask")
        with rasterio.open(mask) as file, rasterio.open(given / "images" / f"{name}.tif") as tile:
            label, image = file.read(1), tile.read()
            crs, transform = tile.crs, tile.transform
        for row, column in itertools.product(range(0, 193, 64), range(48, 193, 64)):
            piece = np.s_[..., row : row + 64, column : column + 64]
            if label[piece].any():
                place = transform @ Affine.translation(column, row)
                _write_chip(
                    source,
                    f"{name}_{row}_{column}",
                    image[piece],
                    label[piece],
                    crs=crs,
                    transform=place,
                )


def write_pastis(given: Path, source: Path) -> None:
    """Write each sub-patch as a chip; their true places are unknown, so they stand in a row."""
    for number, path in enumerate(sorted(given.glob("*.npz"))):
        with np.load(path) as arrays:
            nearest = np.abs(arrays["doy"] - 182).argmin()
            image, label = arrays["img"][nearest].clip(0), arrays["labels"][0]
        pad = [(20, 20), (20, 20)]
        image = np.pad(image.astype(np.uint16), [(0, 0), *pad], mode="symmetric")
        place = from_origin(500_000 + 640 * number, 5_000_000, 10, 10)
        _write_chip(source, path.stem, image, np.pad(label, pad), crs="EPSG:32631", transform=place)


def _write_chip(source: Path, name: str, image, label, *, crs, transform: Affine) -> None:
    for folder, pixels in (("chips", image), ("labels", label[None])):
        (source / folder).mkdir(parents=True, exist_ok=True)
        bands, height, width = pixels.shape
        profile = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype}
        path = source / folder / f"{name}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", crs=crs, transform=transform, **profile
        ) as file:
            file.write(pixels)


DATASETS: dict[str, tuple[type[CropChips], Callable[[Path, Path], None], str]] = {
    "up_india": (UpIndia, write_up_india, "india"),
    "pastis": (Pastis, write_pastis, "europe"),
}
"""The builder of each dataset, what writes its source files, and the region it lies in."""


@dataclass(frozen=True)
class Arguments:
    """Train on real, field-labelled Sentinel-2 pixels, and map a real scene."""

    dataset: Annotated[Literal["up_india", "pastis"], tyro.conf.Positional]
    """Which of the two."""
    given: Annotated[Path, tyro.conf.Positional]
    """Folder of the dataset's files."""
    out: Path
    """Folder that receives everything."""
    steps: int = 60
    """Optimiser steps."""
    architecture: Literal[tuple(ARCHITECTURE_TITLES)] = "resnet50"  # type: ignore[valid-type]
    """The backbone."""


def main(arguments: Arguments) -> None:
    """Build, train, score, and map where there is a scene."""
    if not arguments.given.is_dir():
        raise InputError(f"{arguments.given} is no folder: give that of {arguments.dataset}")
    builder, write, region = DATASETS[arguments.dataset]
    if find_records(arguments.out / "records", builder.name) is None:
        write(arguments.given, arguments.out / "source")
        build_records(builder, arguments.out / "source", arguments.out / "records")
    records = find_records(arguments.out / "records", builder.name)
    config = TrainConfig.of(
        backbone="ssl4eo",
        region=region,
        architecture=arguments.architecture,
        weights="random",
        bands=builder.BANDS,
        run_dir=arguments.out / "run",
        tune="full",
        steps=arguments.steps,
        batch_size=4,
        eval_every=25,
    )
    bands = band_input("ssl4eo", builder.BANDS)
    run = start_run(config, {region: records}, {"family": "ssl4eo", "source": "random"}, bands)
    train(run, create_model(run))
    score_run(run, split="test", checkpoint="best", batch_size=4)
    # What was removed from the chips is to be removed from the scene.
    offset = int(records.raw("train")[0]["offset"][0])
    for scene in sorted(arguments.given.glob("scene*.tif")):
        crop_map, picture = arguments.out / "map.tif", arguments.out / "map.png"
        predict(PredictConfig(run.folder, scene, crop_map, picture=picture, offset=offset))


if __name__ == "__main__":
    with exit_on_input_error():
        main(tyro.cli(Arguments))
