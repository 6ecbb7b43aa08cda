"""Stopping in time: a SIGTERM is answered with a checkpoint, in all processes at the same step."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75
"""What a preempted run exits with (EX_TEMPFAIL of sysexits.h): the same command goes on."""


class Preempted(SystemExit):
    """Ends the process with EXIT_CODE: what is not in a checkpoint, the same command does anew."""

    def __init__(self):
        super().__init__(EXIT_CODE)


@contextmanager
def _answered(answer: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have `answer` called at a SIGTERM; of several processes JAX's own service hears it."""
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, answer)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


@contextmanager
def preemptible() -> Iterator[None]:
    """Have a SIGTERM raise Preempted at once: for work that is no loss when it is done anew."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Preempted

    with _answered(stop), _repeated():
        yield


@contextmanager
def _repeated() -> Iterator[None]:
    """Have a SIGTERM come again soon where Preempted was raised, and ignored by Python.

    It ignores what is raised in a `__del__` or a callback of the garbage collector, JAX's own say.
    """
    previous, again = sys.unraisablehook, ExitStack()

    def hook(ignored: "sys.UnraisableHookArgs") -> None:
        if not isinstance(ignored.exc_value, Preempted):
            previous(ignored)
            return
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        again.callback(timer.join)
        again.callback(timer.cancel)

    sys.unraisablehook = hook
    with again:
        try:
            yield
        finally:
            sys.unraisablehook = previous


class Preemption:
    """Notes a SIGTERM while training lasts; use it as a context.

    Several processes agree on a step to stop after, whichever of them is told to.
    """

    def __init__(self):
        self.stopping = False
        self._heard = False
        self._questions = 0
        self._opened = ExitStack()

    def __enter__(self) -> "Preemption":
        self._opened.enter_context(_answered(self._note))
        return self

    def __exit__(self, *error) -> None:
        self._opened.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._heard = True

    def asked(self) -> bool:
        """Whether to stop after the present step; every process must ask as often as the others."""
        if jax.process_count() > 1:
            # Questions are counted, not steps: the service stops at a number that follows the
            # present one, and several steps may run as one program.
            self._questions += 1
            self.stopping |= multihost_utils.reached_preemption_sync_point(self._questions)
        else:
            self.stopping |= self._heard
        return self.stopping
