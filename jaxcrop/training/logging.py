"""What a run tells: the terminal, `train.log`, `metrics.jsonl`, TensorBoard, and trackers."""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8, UInt16
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from tensorboardX import SummaryWriter

from jaxcrop.crops import CROPS
from jaxcrop.figures import TRUE_COLOUR, stretched
from jaxcrop.files import replacing
from jaxcrop.training.trackers import open_trackers

_GAP = 4
_AT_ONCE = 1e-3


def progress_line(text: str, last: bool) -> None:
    """Show how far a task is: on a terminal, one line that changes; elsewhere, its last state."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)
    elif last:
        print(text, file=sys.stderr, flush=True)


def message(text: str) -> None:
    """Print a line that stays, in place of the progress line."""
    print(f"\r\x1b[K{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


class RunLog:
    """Scalars, pictures and messages of a run, in its folder and on the terminal.

    On resuming from step `start`, what an interrupted run logged after that step is taken back.
    `trackers` are those of `jaxcrop.training.trackers`. Without `writes`, as in every process but
    the first of several, nothing is written or shown.
    """

    def __init__(
        self,
        run_dir: Path,
        start: int,
        steps: int,
        *,
        title: str,
        settings: dict[str, Any],
        trackers: Sequence[str] = (),
        writes: bool = True,
    ):
        self._steps = steps
        self._writes = writes
        self._timed_from: tuple[int, float] | None = None
        self._told_at = 0.0
        self._seconds_per_step: float | None = None
        self._opened = ExitStack()
        if not writes:
            return
        with ExitStack() as opened:  # closes what is open if the next cannot be
            self._trackers = open_trackers(trackers, run_dir, title, settings, resume=start > 0)
            for tracker in self._trackers:
                opened.callback(tracker.close)
            _keep_until(run_dir / "metrics.jsonl", start)
            self._scalars = opened.enter_context((run_dir / "metrics.jsonl").open("a"))
            self._lines = opened.enter_context((run_dir / "train.log").open("a"))
            self._tensorboard = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start + 1)
            opened.callback(self._tensorboard.close)
            self._bar = None
            if sys.stderr.isatty():
                columns = BarColumn(), TextColumn("{task.description}", markup=False)
                self._bar = opened.enter_context(
                    Progress(*columns, console=Console(file=sys.stderr))
                )
                self._task = self._bar.add_task("", total=steps, completed=start)
            self._opened = opened.pop_all()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record `values` of `step`."""
        if not self._writes:
            return
        self._scalars.write(json.dumps({"step": step, **values}) + "\n")
        self._scalars.flush()
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)
        for tracker in self._trackers:
            tracker.scalars(step, values)

    def progress(self, step: int, loss: float, images: int) -> None:
        """Log the loss of a step, and show it with the images per second and the time left.

        The clock starts with the first loss that arrives, since that one waited for the compiler;
        losses of several steps may arrive together. A line stays ten times a run.
        """
        if not self._writes:
            return
        now = time.perf_counter()
        if self._timed_from is None:
            self._timed_from = step, now
        elif now - self._told_at > _AT_ONCE:
            first, began = self._timed_from
            self._seconds_per_step = (now - began) / (step - first)
        values = {"train/loss": loss}
        text = f"step {step}/{self._steps}  loss {loss:.4f}"
        if self._seconds_per_step is not None:
            values["train/images_per_second"] = images / self._seconds_per_step
            left = int(self._seconds_per_step * (self._steps - step))
            text += f"  {values['train/images_per_second']:.1f} images/s"
            text += f"  {left // 60}:{left % 60:02d} left"
        self.scalars(step, values)
        stays = step == self._steps or step % max(1, self._steps // 10) == 0
        if stays:
            self._write_line(text)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
        elif stays:
            message(text)
        self._told_at = time.perf_counter()

    def message(self, text: str) -> None:
        """Show a line that stays, above the progress bar."""
        if not self._writes:
            return
        self._write_line(text)
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            message(text)

    def pictures(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Show a picture of `step` in TensorBoard and the trackers."""
        if not self._writes:
            return
        self._tensorboard.add_image(name, image, step, dataformats="HWC")
        for tracker in self._trackers:
            tracker.picture(step, name, image)

    def close(self) -> None:
        """End the progress bar, and flush the files and trackers."""
        self._opened.close()

    def _write_line(self, text: str) -> None:
        self._lines.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}  {text}\n")
        self._lines.flush()


def _keep_until(path: Path, step: int) -> None:
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    with replacing(path) as temporary:
        temporary.write_text("".join(kept))


def sample_picture(
    image: UInt16[np.ndarray, "h w band"],
    bands: Sequence[str],
    label: Integer[np.ndarray, "h w"],
    prediction: Integer[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w_of_three 3"]:
    """A chip in true colour, its true classes and the predicted ones, side by side.

    `bands` names those of `image` in their order; the first stands in for one of B04, B03, B02 that
    is not there. Unlabelled pixels are white, the gaps of 4 pixels black.
    """
    places = [bands.index(band) if band in bands else 0 for band in TRUE_COLOUR.bands]
    chip = stretched(image[..., places].astype(np.float32), image.any(axis=-1))
    palette = np.array([(255, 255, 255), *(crop.rgb for crop in CROPS[1:])], np.uint8)
    gap = np.zeros((image.shape[0], _GAP, 3), np.uint8)
    panels = np.round(chip * 255).astype(np.uint8), gap, palette[label], gap, palette[prediction]
    return np.concatenate(panels, axis=1)
