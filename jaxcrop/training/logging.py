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

from jaxcrop.crops import CROPS
from jaxcrop.figures import TRUE_COLOUR, stretched
from jaxcrop.files import json_lines, replacing, writing
from jaxcrop.importing import unseen
from jaxcrop.training.trackers import open_trackers

with unseen("torch"):  # of which tensorboardX imports what takes 3 s and 180 MB, for a type's name
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import image as image_summary
    from tensorboardX.summary import scalar as scalar_summary

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
    """Scalars, pictures and messages of a run, in its folder and on the terminal; a context.

    On resuming from step `start`, what an interrupted run logged after that step is taken back.
    `trackers` are those of `jaxcrop.training.trackers`, which hear how the context ends. Without
    `writes`, as in every process but the first of several, nothing is written or shown. What is
    logged is in its files at once. Raises InputError where a file cannot be written.
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
        self._folder = run_dir
        self._steps = steps
        self._writes = writes
        self._timed_from: tuple[int, float] | None = None
        self._told_at = 0.0
        self._seconds_per_step: float | None = None
        self._opened = ExitStack()
        if not writes:
            return
        with writing(run_dir), ExitStack() as opened:  # closes what is open if the next cannot be
            self._trackers = open_trackers(trackers, run_dir, title, settings, resume=start > 0)
            for tracker in self._trackers:
                opened.push(tracker)
            _keep_until(run_dir / "metrics.jsonl", start)
            self._scalars = opened.enter_context((run_dir / "metrics.jsonl").open("a"))
            self._lines = opened.enter_context((run_dir / "train.log").open("a"))
            self._tensorboard = opened.enter_context(_TensorBoard(run_dir / "tensorboard", start))
            self._bar = None
            if sys.stderr.isatty():
                columns = BarColumn(), TextColumn("{task.description}", markup=False)
                self._bar = opened.enter_context(
                    Progress(*columns, console=Console(file=sys.stderr))
                )
                self._task = self._bar.add_task("", total=steps, completed=start)
            self._opened = opened.pop_all()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error) -> None:
        with writing(self._folder):
            self._opened.__exit__(*error)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record `values` of `step`."""
        if not self._writes:
            return
        with writing(self._folder):
            self._scalars.write(json.dumps({"step": step, **values}) + "\n")
            self._scalars.flush()
            self._tensorboard.write(
                step, *(scalar_summary(name, value) for name, value in values.items())
            )
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
        with writing(self._folder):
            self._tensorboard.write(step, image_summary(name, image, dataformats="HWC"))
            for tracker in self._trackers:
                tracker.picture(step, name, image)

    def _write_line(self, text: str) -> None:
        with writing(self._folder):
            self._lines.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}  {text}\n")
            self._lines.flush()


class _TensorBoard:
    """TensorBoard's file of a run's events from step `start` on; a context.

    They are written here and now. tensorboardX's own SummaryWriter has a thread write them, which a
    full disk ends, and training then waits for it forever; a kill takes the last two minutes.
    """

    def __init__(self, folder: Path, start: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / "events"))
        # TensorBoard forgets what an interrupted run wrote from the step after `start` on.
        self._write(Event(step=start + 1, file_version="brain.Event:2"))
        self._write(Event(step=start + 1, session_log=SessionLog(status=SessionLog.START)))

    def __enter__(self) -> "_TensorBoard":
        return self

    def __exit__(self, *error) -> None:
        self._file.close()

    def write(self, step: int, *summaries: Summary) -> None:
        for summary in summaries:
            self._write(Event(step=step, summary=summary))
        self._file.flush()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write_event(event)


def _keep_until(path: Path, step: int) -> None:
    rows = json_lines(path) if path.exists() else []
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(r) + "\n" for r in rows if r["step"] <= step))


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
