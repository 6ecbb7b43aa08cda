"""`python -m jaxcrop.evaluate RUN`: score a trained model on its region's chips."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxcrop.cli import exit_on_input_error


@dataclass(frozen=True)
class EvaluateConfig:
    """Score a trained model beside two baselines; write what was found into RUN/evaluation."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the training run."""
    split: Literal["test", "validation", "train"] = "test"
    """Chips to score on."""
    checkpoint: Literal["best", "last"] = "best"
    """The checkpoint with the lowest validation loss, or that of the last step."""
    batch_size: int = 8
    """Chips at a time, over all devices."""


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate as the arguments say, print the table, and name the files written."""
    with exit_on_input_error():
        config = tyro.cli(EvaluateConfig, args=argv, prog="python -m jaxcrop.evaluate")
        # Heavy imports wait until the arguments are known to be right: --help answers at once.
        from jaxcrop.config import DeviceConfig  # noqa: PLC0415
        from jaxcrop.mesh import prepare_devices  # noqa: PLC0415
        from jaxcrop.trained import load_run  # noqa: PLC0415

        prepare_devices(DeviceConfig())
        load_run(config.run, config.checkpoint).evaluate(config.split, batch_size=config.batch_size)


if __name__ == "__main__":
    main()
