"""Freed memory, as the kernel counts it in a process of its own."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")


def _printed(program: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_freed_arrays_are_kept_for_the_next():
    """Their pages are there when they are wanted again: the kernel counts no faults."""
    before, after = _printed(
        "import resource, numpy as np\n"
        "from jaxcrop.allocator import keep_freed_memory\n"
        "def faults():\n"
        "    begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    batches = [np.empty(16 << 20, np.uint8) for _ in range(8)]\n"
        "    for batch in batches: batch.fill(1)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun\n"
        "faults()\n"
        "print(faults())\n"
        "keep_freed_memory()\n"
        "faults()\n"
        "print(faults())\n"
    )
    assert after < before / 10


def test_memory_is_returned_when_asked():
    """Small blocks that were freed below one in use are the process's until then."""
    kept, returned = _printed(
        "import os\n"
        "from jaxcrop.allocator import return_freed_memory\n"
        "def megabytes():\n"
        "    pages = int(open('/proc/self/statm').read().split()[1])\n"
        "    return pages * os.sysconf('SC_PAGE_SIZE') >> 20\n"
        "blocks = [bytes(100_000) for _ in range(2000)]\n"
        "blocks = blocks[-1:]\n"
        "print(megabytes())\n"
        "return_freed_memory()\n"
        "print(megabytes())\n"
    )
    assert returned < kept - 100
