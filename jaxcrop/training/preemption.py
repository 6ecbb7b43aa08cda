"""Stopping in time: a SIGTERM is answered with a checkpoint, in all processes at the same step."""

import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75
"""What a preempted run exits with (EX_TEMPFAIL of sysexits.h): the same command goes on."""


class Preempted(SystemExit):
    """Ends the process with EXIT_CODE, after the checkpoint of a preempted run is written."""

    def __init__(self):
        super().__init__(EXIT_CODE)


class Preemption:
    """Notes a SIGTERM while training lasts; use it as a context.

    Of several processes JAX's own service hears the signal, and has them agree on a step.
    """

    def __init__(self):
        self.stopping = False
        self._heard = False
        self._previous = None

    def __enter__(self) -> "Preemption":
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._heard = True

    def asked(self, step: int) -> bool:
        """Whether to stop after `step`; every process must ask at every step."""
        if jax.process_count() > 1:
            self.stopping |= multihost_utils.reached_preemption_sync_point(step)
        else:
            self.stopping |= self._heard
        return self.stopping
