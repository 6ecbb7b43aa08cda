"""What a run tells: a progress line, `metrics.jsonl`, and TensorBoard event files."""

import json
import sys
import time
from pathlib import Path

from tensorboardX import SummaryWriter

from jaxcrop.files import replacing


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
    """Scalars of a run in its folder, and one line on the terminal that says how it goes.

    On resuming from step `start`, what an interrupted run logged after that step is taken back.
    """

    def __init__(self, run_dir: Path, start: int, steps: int):
        self._path = run_dir / "metrics.jsonl"
        self._keep_until(start)
        self._file = self._path.open("a")
        self._tensorboard = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start + 1)
        self._steps = steps
        self._timed_from: tuple[int, float] | None = None

    def _keep_until(self, step: int) -> None:
        lines = self._path.read_text().splitlines(keepends=True) if self._path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        with replacing(self._path) as temporary:
            temporary.write_text("".join(kept))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record `values` of `step`."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)

    def progress(self, step: int, loss: float, images: int) -> None:
        """Log the loss of a step, and show it with the images per second and the time left.

        The clock starts with the second step, since the first one waits for the compiler. A line
        stays ten times a run.
        """
        values = {"train/loss": loss}
        text = f"step {step}/{self._steps}  loss {loss:.4f}"
        if self._timed_from is None:
            self._timed_from = step, time.perf_counter()
        else:
            first, began = self._timed_from
            seconds_per_step = (time.perf_counter() - began) / (step - first)
            left = int(seconds_per_step * (self._steps - step))
            values["train/images_per_second"] = images / seconds_per_step
            text += f"  {images / seconds_per_step:.1f} images/s"
            text += f"  {left // 60}:{left % 60:02d} left"
        self.scalars(step, values)
        progress_line(text, last=step == self._steps or step % max(1, self._steps // 10) == 0)

    def close(self) -> None:
        """Flush the files."""
        self._file.close()
        self._tensorboard.close()
