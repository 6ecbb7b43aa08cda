"""`python -m jaxcrop.predict RUN scene.tif map.tif`: turn a scene into a crop map."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxcrop.cli import exit_on_input_error


@dataclass(frozen=True)
class PredictConfig:
    """Turn a Sentinel-2 scene of any size into a crop map on the same grid, to open in any GIS."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the training run."""
    scene: Annotated[Path, tyro.conf.Positional]
    """Multi-band raster of digital numbers, its bands described as B01 … B12."""
    out: Annotated[Path, tyro.conf.Positional]
    """Map to write: a cloud-optimised GeoTIFF with a colour table."""
    confidence: Path | None = None
    """Second raster to write: the probability of the mapped crop in per cent."""
    picture: Path | None = None
    """PNG to write: scene and map side by side."""
    truth: Path | None = None
    """Raster of the true classes on the scene's grid, to stand beside the map in the picture."""
    bands: tuple[str, ...] | None = None
    """Names of the scene's bands in order, where the file does not describe them."""
    offset: int = 0
    """Digital number to subtract: 1000 for products of baseline 04.00 and later that carry it."""
    checkpoint: Literal["best", "last"] = "best"
    """The checkpoint with the lowest validation loss, or that of the last step."""
    overlap: int = 64
    """Pixels that neighbouring windows share, blended."""
    batch_size: int = 4
    """Windows at a time."""


def main(argv: Sequence[str] | None = None) -> None:
    """Map as the arguments say, and print the area of each crop."""
    with exit_on_input_error():
        config = tyro.cli(PredictConfig, args=argv, prog="python -m jaxcrop.predict")
        predict(config)


def predict(config: PredictConfig) -> None:
    """Map `config.scene` by the trained model of `config.run`; print the area of each crop."""
    # Heavy imports wait until the arguments are known to be right: --help answers at once.
    from jaxcrop.config import DeviceConfig  # noqa: PLC0415
    from jaxcrop.figures import check_picture_path, map_figure, save_figure  # noqa: PLC0415
    from jaxcrop.mesh import prepare_devices  # noqa: PLC0415
    from jaxcrop.trained import load_run  # noqa: PLC0415
    from jaxcrop.training.logging import progress_line  # noqa: PLC0415

    prepare_devices(DeviceConfig())
    trained = load_run(config.run, config.checkpoint)
    if config.picture is not None:
        check_picture_path(config.picture)
    summary = trained.map_scene(
        config.scene,
        config.out,
        confidence=config.confidence,
        bands=config.bands,
        offset=config.offset,
        overlap=config.overlap,
        batch_size=config.batch_size,
        progress=lambda done, total: progress_line(f"{done}/{total} windows", done == total),
    )
    print(f"{config.out}: {trained.title}")
    print(summary)
    if config.picture is not None:
        figure = map_figure(
            config.scene,
            config.out,
            bands=config.bands,
            offset=config.offset,
            truth=config.truth,
            title=trained.title,
        )
        save_figure(figure, config.picture)
        print(f"{config.picture}: the scene and its map")


if __name__ == "__main__":
    main()
