"""A trace of a few training steps, for Perfetto and for TensorBoard's profiler (XProf)."""

from pathlib import Path

import jax


class Profile:
    """Trace the steps from `first` to `last` into `folder`; none where `last` is before `first`.

    The trace lies below `folder`/plugins/profile: `perfetto_trace.json.gz` opens in Perfetto, the
    folder itself in XProf. Where several steps run as one call, the whole call is traced.
    Work whose results are still held, as a training state is, is waited for at both ends.
    """

    def __init__(self, folder: Path, first: int, last: int):
        self._folder, self._first, self._last = folder, first, last
        self._wanted = first <= last
        self._annotation: jax.profiler.StepTraceAnnotation | None = None

    def step(self, step: int) -> None:
        """Say that `step` is about to run: the trace begins or ends here if it is due."""
        if self._annotation is not None:
            if step > self._last:
                self.close()
                return
            self._annotation.__exit__(None, None, None)
        elif self._wanted and step >= self._first:
            self._wanted = False
            _wait_for_devices()
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # its events would crowd out those of the device
            jax.profiler.start_trace(
                self._folder, create_perfetto_trace=True, profiler_options=options
            )
        else:
            return
        self._annotation = jax.profiler.StepTraceAnnotation("train", step_num=step)
        self._annotation.__enter__()

    def close(self) -> None:
        """End a trace that is still running, once the devices are done."""
        if self._annotation is not None:
            try:
                _wait_for_devices()
                self._annotation.__exit__(None, None, None)
            finally:
                self._annotation = None
                jax.profiler.stop_trace()


def _wait_for_devices() -> None:
    jax.block_until_ready(jax.live_arrays())
