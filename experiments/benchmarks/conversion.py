"""How long converting a Swin-v2-B file takes beside reading and writing its bytes.

    python experiments/benchmarks/conversion.py

Writes a SatlasPretrain-shaped checkpoint of 350 MB (needs the `torch` extra), then alternates the
two: from disk to disk (the source dropped from the cache before, the result flushed after), and
within the cache. Prints the median of their ratios and the peak memory of a process that converts.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 9


def write_checkpoint(path: Path) -> None:
    """A Swin-v2-B of nine channels as torchgeo publishes it, with fresh weights."""
    import torch  # noqa: PLC0415

    from weights_convert.originals import original  # noqa: PLC0415

    module = original("torchvision-swin", "plain", "swin-v2-b", 9).module
    torch.save(module.state_dict(), path)


def copy(source: Path, destination: Path) -> None:
    """Read all bytes and write them."""
    destination.mkdir()
    (destination / "copy").write_bytes(source.read_bytes())


def seconds(work: Callable[[Path, Path], object], source: Path, *, disk: bool) -> float:
    """How long it takes to make a folder out of `source`, which is removed again."""
    destination = source.with_name("made")
    if disk:
        with source.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began = time.perf_counter()
    work(source, destination)
    if disk:
        for path in destination.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    taken = time.perf_counter() - began
    shutil.rmtree(destination)
    return taken


def convert_once(source: Path) -> None:
    """Convert in this process and print its peak memory in MB."""
    from weights_convert.convert import convert  # noqa: PLC0415

    convert(source, source.with_name("measured"))
    # Not getrusage: what it says of a child begins with the memory of its parent.
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only-memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_memory_of:
        convert_once(options.only_memory_of)
        return
    from weights_convert.convert import convert  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "swin.pth"
        write_checkpoint(source)
        os.sync()
        size = source.stat().st_size / 1e6
        seconds(convert, source, disk=False)  # JAX compiles for the first time
        for name, disk in (("from disk to disk", True), ("within the cache", False)):
            rounds = [
                (seconds(copy, source, disk=disk), seconds(convert, source, disk=disk))
                for _ in range(ROUNDS)
            ]
            ratios = [converted / copied for copied, converted in rounds]
            print(
                f"{name}: reading and writing {size:.0f} MB takes "
                f"{statistics.median(copied for copied, _ in rounds):.2f} s, converting "
                f"{statistics.median(ratios):.2f} times as long "
                f"({min(ratios):.2f} to {max(ratios):.2f})",
                flush=True,
            )
        command = [sys.executable, __file__, "--only-memory-of", str(source)]
        peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"peak memory of a process, JAX and all: {peak:.0f} MB, {peak / size:.2f} times the file")


if __name__ == "__main__":
    main()
