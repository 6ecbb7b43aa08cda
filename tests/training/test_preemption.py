import gc
import signal
import time

import pytest

from jaxcrop.training.preemption import EXIT_CODE, Preempted, Preemption, preemptible


def _told() -> None:
    signal.raise_signal(signal.SIGTERM)


class _ToldInTheEnd:
    """A SIGTERM comes as it is deleted, where Python ignores what is raised."""

    def __del__(self):
        _told()


def _told_in_a_collection() -> None:
    def callback(phase, info):
        gc.callbacks.remove(callback)
        _told()

    gc.callbacks.append(callback)
    gc.collect()


@pytest.mark.parametrize("tell", [_told, _ToldInTheEnd, _told_in_a_collection])
def test_a_sigterm_ends_the_work_wherever_it_comes(tell):
    @preemptible()
    def work():
        tell()
        time.sleep(30)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted) as caught:
        work()
    assert caught.value.code == EXIT_CODE
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_python_ignored_is_noted_in_training():
    with preemptible():
        _ToldInTheEnd()
        with Preemption() as preemption:
            limit = time.monotonic() + 30
            while not preemption.asked() and time.monotonic() < limit:
                time.sleep(0.01)
        assert preemption.stopping


def test_work_that_ends_before_it_is_told_again_has_ended():
    with preemptible():
        _ToldInTheEnd()
    time.sleep(0.2)  # a SIGTERM now would end this process


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_other_errors_that_python_ignores_are_told_as_ever(monkeypatch):
    class Broken:
        def __del__(self):
            raise ValueError("broken")

    told = []
    monkeypatch.setattr("sys.unraisablehook", told.append)
    with preemptible():
        Broken()
    assert [str(ignored.exc_value) for ignored in told] == ["broken"]
