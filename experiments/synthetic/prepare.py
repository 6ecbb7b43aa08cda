"""Draw the synthetic regions of `study.yaml` beside this file, and make the weights it names.

    python experiments/synthetic/prepare.py FOLDER      # half an hour on two cores
    cd FOLDER && python -m jaxcrop.sweep .../experiments/synthetic/study.yaml --data-dir records

FOLDER receives `records` of five regions; `imagenet-shaped`, random numbers in the shape of an
ImageNet checkpoint, converted as one (needs the `torch` extra); and `pretrained/REGION`, runs from
random weights on the other four regions. What is there already stays.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxcrop.cli import exit_on_input_error
from jaxcrop.config import TrainConfig
from jaxcrop.data.build import build
from jaxcrop.data.synthetic import write_region
from jaxcrop.regions import REGIONS
from jaxcrop.train import train_and_evaluate

CHIPS = 160
"""Drawn in each region; a tenth tests, a tenth validates."""

PRETRAINING = {
    "backbone": "ssl4eo",
    "architecture": "resnet18",
    "decoder": "linear",
    "weights": "random",
    "setting": "ood",
    "splits": "random",
    "tune": "full",
    "batch_size": 8,
    "steps": 400,
    "seed": 100,  # none of the study's
}


@dataclass(frozen=True)
class Prepare:
    """Draw regions and make weights for the study of synthetic regions."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Receives records and weights."""


def draw(folder: Path) -> None:
    """Records of every region of the paper."""
    for name, region in REGIONS.items():
        if region.in_paper and not (folder / "records" / region.dataset).exists():
            with tempfile.TemporaryDirectory(dir=folder) as source:
                write_region(Path(source), name, CHIPS, seed=0)
                build(region.dataset, Path(source), folder / "records")


def shape(folder: Path) -> None:
    """A checkpoint as timm saves one for ImageNet, of random numbers, converted."""
    from weights_convert.convert import convert  # noqa: PLC0415
    from weights_convert.originals import import_torchvision  # noqa: PLC0415

    if (folder / "imagenet-shaped").exists():
        return
    import_torchvision()
    import timm  # noqa: PLC0415
    import torch  # noqa: PLC0415

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        checkpoint = Path(temporary) / "resnet18.pth"
        # timm begins with blocks that add nothing: their features would be those of the stem.
        model = timm.create_model("resnet18", zero_init_last=False)
        torch.save(model.state_dict(), checkpoint)
        convert(checkpoint, folder / "imagenet-shaped", like="imagenet-resnet18-v1")


def pretrain(folder: Path) -> None:
    """For every region, a run on the others."""
    for name, region in REGIONS.items():
        if region.in_paper:
            train_and_evaluate(
                TrainConfig.of(
                    **PRETRAINING,
                    region=name,
                    data_dir=folder / "records",
                    run_dir=folder / "pretrained" / name,
                )
            )


def main() -> None:
    """Prepare the folder that the command line names."""
    with exit_on_input_error():
        folder = tyro.cli(Prepare).folder
        folder.mkdir(parents=True, exist_ok=True)
        draw(folder)
        shape(folder)
        pretrain(folder)


if __name__ == "__main__":
    main()
