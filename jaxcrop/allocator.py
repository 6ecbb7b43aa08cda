"""What glibc does with freed memory: keep it, or return it to the kernel."""

import ctypes
from contextlib import suppress
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


@cache
def keep_freed_memory() -> None:
    """Have glibc keep blocks up to 32 MB that are freed from now on, for what comes next.

    It returns them to the kernel otherwise, and touching the pages of a new block for the first
    time takes as long as reading a chip into it.
    """
    with suppress(OSError, AttributeError):  # another C library
        libc = _libc()
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def return_freed_memory() -> None:
    """Have glibc return to the kernel what it has kept."""
    with suppress(OSError, AttributeError):
        _libc().malloc_trim(0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL("libc.so.6")
