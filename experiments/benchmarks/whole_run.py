"""How long a whole training run takes beside torchgeo's Lightning trainer, and how much memory.

    chrt -f 10 python experiments/benchmarks/whole_run.py           # a quarter of an hour
    python experiments/benchmarks/whole_run.py --small              # a quick look

Draws synthetic chips of Africa and trains a U-Net over a frozen ResNet-50 with random weights on 90
of them, 10 validate, 100 test: ten passes in batches of 16, a validation and checkpoint after each.
Each run is a process of its own, from its start to its end, one after the other:

- `python -m jaxcrop.train` on records, twice: the first compiles every program, the second finds
  them in the cache that the first left. With `--augmentation views`, as its documentation advises
  for a frozen backbone on a CPU: what the backbone makes of each chip in four views is computed
  once. `--augmentation fresh` asks for the default, a new crop and flip in every step;
- torchgeo's `SemanticSegmentationTask` and a datamodule of its own on the same chips as GeoTIFFs
  (needs the `torch` extra), with channels last, all cores, torchgeo's usual augmentation by
  Kornia, TensorBoard, the best and the last checkpoint, and without dropping a pass's last batch.

Prints the seconds and the peak memory of each, and the ratios.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar, NamedTuple

BATCH = 16
SPLITS = ("train", "validation", "test")
NUM_CLASSES, IGNORE = 6, 0


class Size(NamedTuple):
    """How many chips are labelled, a tenth of which validate, how many test, how many passes."""

    labelled: int
    tested: int
    epochs: int


FULL, SMALL = Size(100, 100, 10), Size(40, 10, 2)


class Cost(NamedTuple):
    """What a process took."""

    seconds: float
    megabytes: float


def draw(folder: Path, size: Size) -> None:
    """Records of synthetic chips, lists of their splits, and the same chips as GeoTIFFs."""
    from jaxcrop.data.build import build  # noqa: PLC0415
    from jaxcrop.data.chip_lists import write_lists  # noqa: PLC0415
    from jaxcrop.data.experiment import plan  # noqa: PLC0415
    from jaxcrop.data.index import index_of  # noqa: PLC0415
    from jaxcrop.data.reading import find_records  # noqa: PLC0415
    from jaxcrop.data.splits import random_split  # noqa: PLC0415
    from jaxcrop.data.synthetic import write_region  # noqa: PLC0415

    chips = size.labelled + size.tested + 20
    write_region(folder / "source", "africa", chips, seed=0)
    build("sact", folder / "source", folder / "records")
    records = find_records(folder / "records", "sact")
    shares = {"test": size.tested / chips, "validation": 10 / chips}
    write_lists(random_split(index_of(records), seed=0, **shares), folder / "lists")
    experiment = plan({"africa": records}, "africa", budget=size.labelled, by=str(folder / "lists"))
    for split in SPLITS:
        write_geotiffs(experiment, split, folder / "geotiffs" / split)


def write_geotiffs(experiment, split: str, folder: Path) -> None:
    """The chips of a split in a file each, uncompressed, and beside them their classes."""
    import rasterio  # noqa: PLC0415

    from jaxcrop.data.bands import SENTINEL2_BANDS, BandInput  # noqa: PLC0415

    bands = BandInput.scaled(SENTINEL2_BANDS)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for chip in experiment.chips(split, bands):
        height, width = chip.label.shape
        profile = {
            "driver": "GTiff",
            "height": height,
            "width": width,
            "crs": chip.crs,
            "transform": rasterio.Affine(*chip.transform),
        }
        for kind, planes in (
            ("images", chip.image.transpose(2, 0, 1)),
            ("labels", chip.label[None]),
        ):
            path = folder / kind / f"{chip.chip_id}.tif"
            with rasterio.open(path, "w", count=len(planes), dtype=planes.dtype, **profile) as file:
                file.write(planes)


def torchgeo_run(folder: Path, out: Path, epochs: int, workers: int, *, compiled: bool) -> None:
    """What a user of torchgeo runs: fit with checkpoints, then test the best."""
    from weights_convert.originals import import_torchvision  # noqa: PLC0415

    import_torchvision()
    import kornia.augmentation as K  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from kornia.constants import DataKey, Resample  # noqa: PLC0415
    from lightning.pytorch import Trainer, seed_everything  # noqa: PLC0415
    from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: PLC0415
    from lightning.pytorch.loggers import TensorBoardLogger  # noqa: PLC0415
    from torchgeo.datamodules import GeoDataModule  # noqa: PLC0415
    from torchgeo.datasets import RasterDataset  # noqa: PLC0415
    from torchgeo.samplers import PreChippedGeoSampler  # noqa: PLC0415
    from torchgeo.trainers import SemanticSegmentationTask  # noqa: PLC0415

    class Images(RasterDataset):
        filename_glob = "*.tif"

    class Labels(RasterDataset):
        filename_glob = "*.tif"
        is_image = False
        cmap: ClassVar = {}

    class Chips(GeoDataModule):
        mean, std = torch.tensor(0.0), torch.tensor(10_000.0)

        def __init__(self):
            super().__init__(Images, BATCH, 256, num_workers=workers)
            self.train_aug = K.AugmentationSequential(
                K.Normalize(mean=self.mean, std=self.std),
                K.RandomResizedCrop((256, 256), scale=(0.6, 1.0)),
                K.RandomVerticalFlip(p=0.5),
                K.RandomHorizontalFlip(p=0.5),
                data_keys=None,
                keepdim=True,
                extra_args={DataKey.MASK: {"resample": Resample.NEAREST, "align_corners": None}},
            )

        def setup(self, stage: str) -> None:
            del stage
            for split, name in zip(SPLITS, ("train", "val", "test"), strict=True):
                images = Images(str(folder / "geotiffs" / split / "images"))
                both = images & Labels(str(folder / "geotiffs" / split / "labels"))
                setattr(self, f"{name}_dataset", both)
                sampler = PreChippedGeoSampler(both, shuffle=split == "train")
                setattr(self, f"{name}_sampler", sampler)

        def train_dataloader(self):
            loader = super().train_dataloader()
            return torch.utils.data.DataLoader(
                loader.dataset,
                batch_size=loader.batch_size,
                sampler=loader.sampler,
                num_workers=loader.num_workers,
                collate_fn=loader.collate_fn,
                persistent_workers=loader.persistent_workers,
            )

        def on_after_batch_transfer(self, batch, dataloader_idx):
            batch = super().on_after_batch_transfer(batch, dataloader_idx)
            batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
            return batch

    seed_everything(0)
    task = SemanticSegmentationTask(
        model="unet",
        backbone="resnet50",
        weights=None,
        in_channels=13,
        num_classes=NUM_CLASSES,
        ignore_index=IGNORE,
        patience=1,
        freeze_backbone=True,
    )
    task.model = task.model.to(memory_format=torch.channels_last)
    if compiled:
        task.model.compile()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=TensorBoardLogger(str(out)),
        log_every_n_steps=1,
        callbacks=[ModelCheckpoint(monitor="val_loss", save_last=True)],
    )
    chips = Chips()
    trainer.fit(task, chips)
    trainer.test(task, chips, ckpt_path="best", weights_only=False)


def our_command(folder: Path, out: Path, size: Size, augmentation: str) -> list[str]:
    """What a user of jaxcrop runs."""
    return [
        *(sys.executable, "-m", "jaxcrop.train", "--backbone", "ssl4eo", "--region", "africa"),
        *("--weights", "random", "--budget", str(size.labelled), "--epochs", str(size.epochs)),
        *("--batch-size", str(BATCH), "--splits", str(folder / "lists")),
        *("--augmentation", augmentation),
        *("--data-dir", str(folder / "records"), "--run-dir", str(out)),
    ]


def run(name: str, command: list[str], log: Path, **environment: str) -> Cost:
    """Run a command to its end: its seconds, and its largest memory."""
    began = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **environment}
        )
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        sys.exit(f"{name} failed:\n{log.read_text()[-3000:]}")
    # This process imports nothing large, so what a child is said to need is its own.
    cost = Cost(seconds, usage.ru_maxrss * 1024 / 1e6)
    print(f"{name}: {cost.seconds:.1f} s, peak memory {cost.megabytes:.0f} MB", flush=True)
    return cost


def compare(folder: Path, size: Size, workers: int, *, augmentation: str, compiled: bool) -> None:
    """Run each, and print."""
    me = [sys.executable, __file__, "--folder", str(folder)]
    drawing = [*me, "--draw", *(["--small"] if size == SMALL else [])]
    if not (folder / "geotiffs").exists():
        run("drawing the chips", drawing, folder / "drawing.log")
    theirs = [*me, "--torchgeo", str(size.epochs), "--workers", str(workers)]
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        place = Path(fresh)
        ours = {"JAXCROP_CACHE": str(place / "cache")}
        cold = run(
            "jaxcrop, nothing compiled before",
            our_command(folder, place / "cold", size, augmentation),
            folder / "cold.log",
            **ours,
        )
        other = run(
            "torchgeo, compiled" if compiled else "torchgeo",
            [*theirs, *(["--compile"] if compiled else []), "--out", str(place / "torchgeo")],
            folder / "torchgeo.log",
        )
        warm = run(
            "jaxcrop, compiled before",
            our_command(folder, place / "warm", size, augmentation),
            folder / "warm.log",
            **ours,
        )
    print(
        f"jaxcrop takes {cold.seconds / other.seconds:.2f} of torchgeo's time, "
        f"{warm.seconds / other.seconds:.2f} with what it compiled before; "
        f"{cold.megabytes / other.megabytes:.2f} and {warm.megabytes / other.megabytes:.2f} of its "
        "memory"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="40 labelled chips, two passes")
    parser.add_argument("--folder", type=Path, help="keeps the chips and the logs")
    parser.add_argument("--workers", type=int, default=2, help="torchgeo's processes that read")
    parser.add_argument("--compile", action="store_true", help="torch.compile for torchgeo's model")
    parser.add_argument(
        "--augmentation",
        choices=("views", "fresh"),
        default="views",
        help="each chip in one of four fixed views, or changed anew in every step",
    )
    parser.add_argument("--draw", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--torchgeo", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = SMALL if options.small else FULL
    how = {"augmentation": options.augmentation, "compiled": options.compile}
    if options.draw:
        draw(options.folder, size)
    elif options.torchgeo:
        torchgeo_run(
            options.folder, options.out, options.torchgeo, options.workers, compiled=options.compile
        )
    elif options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        compare(options.folder, size, options.workers, **how)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), size, options.workers, **how)


if __name__ == "__main__":
    main()
