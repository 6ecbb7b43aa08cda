"""How long converting a Swin-v2-B file takes beside reading and writing its bytes.

    python experiments/benchmarks/conversion.py

Writes a SatlasPretrain-shaped checkpoint of 350 MB (needs the `torch` extra), then alternates the
two and prints the median of their ratio and the peak memory of a process that converts.
"""

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 9


def write_checkpoint(path: Path) -> None:
    """A Swin-v2-B of nine channels as torchgeo publishes it, with fresh weights."""
    import torch  # noqa: PLC0415

    from weights_convert.oracle import original  # noqa: PLC0415

    module = original("torchvision-swin", "plain", "swin-v2-b", 9).module
    torch.save(module.state_dict(), path)


def copy(source: Path, destination: Path) -> None:
    """Read all bytes and write them."""
    destination.write_bytes(source.read_bytes())


def seconds(work, *arguments) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def convert_once(source: Path) -> None:
    """Convert in this process and print its peak memory in MB."""
    from weights_convert.convert import convert  # noqa: PLC0415

    convert(source, source.with_name("measured"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


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
        size = source.stat().st_size / 1e6
        ratios, copies = [], []
        for _ in range(ROUNDS):
            copied = seconds(copy, source, Path(folder) / "copy")
            (Path(folder) / "copy").unlink()
            converted = seconds(convert, source, Path(folder) / "out")
            shutil.rmtree(Path(folder) / "out")
            ratios.append(converted / copied)
            copies.append(copied)
        command = [sys.executable, __file__, "--only-memory-of", str(source)]
        peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"file: {size:.0f} MB; reading and writing it: {statistics.median(copies):.2f} s")
    print(
        f"converting takes {statistics.median(ratios):.2f} times as long "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )
    print(
        f"peak memory of the process, JAX and all: {peak:.0f} MB, {peak / size:.2f} times the file"
    )


if __name__ == "__main__":
    main()
