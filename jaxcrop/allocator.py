"""What glibc does with freed memory: keep it, or return it to the kernel."""

import ctypes
from contextlib import suppress
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # of malloc.h


@cache
def keep_freed_memory() -> None:
    """Have glibc keep what is freed from now on for what comes next, in one heap for all threads.

    It returns large blocks to the kernel otherwise, and touching the pages of a new one for the
    first time takes as long as reading a chip into it, and a tenth of a U-Net's training step,
    whose activations XLA asks for anew each time. Threads that have a heap of their own keep it, so
    this is to be called before any are started.
    """
    with suppress(OSError, AttributeError):  # another C library
        libc = _libc()
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Have glibc return to the kernel what it has kept."""
    with suppress(OSError, AttributeError):
        _libc().malloc_trim(0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL("libc.so.6")
