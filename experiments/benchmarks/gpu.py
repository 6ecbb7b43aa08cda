"""How fast a GPU trains beside PyTorch, at what share of its peak, and how busy a run keeps it.

    python experiments/benchmarks/gpu.py                  # everything
    python experiments/benchmarks/gpu.py unet             # all parameters trained, beside PyTorch
    python experiments/benchmarks/gpu.py cached streamed  # how busy the GPU is in a run

`unet` and `unet-frozen` train a U-Net over a ResNet-50 in bfloat16 on 128 images of 256x256x13.
Each peer is a process of its own, one after the other (needs the `torch` extra with a CUDA build
of PyTorch). PyTorch runs under autocast with channels last, cuDNN's benchmark and a fused AdamW,
eager and compiled, and the faster of the two is compared. Prints images/s, what share of the GPU's
peak FLOP/s the model's own are (as PyTorch counts them, whatever either peer saves), and the peak
of what each allocates on the GPU.

`cached` and `streamed` train the same on synthetic chips, augmented anew in every step, that lie on
the device or are read from records: images/s, and the share of the time in which the GPU computes,
as its profiler sees it.
"""

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from steps import Case, Steps, our_steps, our_training, their_model, their_steps

CASES = {
    "unet": Case("resnet50", "unet", frozen=False, batch=128, size=256, dtype="bfloat16"),
    "unet-frozen": Case("resnet50", "unet", frozen=True, batch=128, size=256, dtype="bfloat16"),
}
RUNS = ("cached", "streamed")
PEERS = ("jaxcrop", "eager", "compiled")
ROUNDS, STEPS = 5, 10

PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}
"""FLOP/s of dense products in bfloat16, as data sheets say."""

CHIPS, TIMES = 128, 8
"""Chips that are drawn, and how often each is in the data of a run."""


class Measured(NamedTuple):
    """Seconds a step in each round, gigabytes allocated at most, and what the GPU is called."""

    seconds: list[float]
    gigabytes: float
    device: str


def flops(case: Case) -> int:
    """Operations of a step as PyTorch counts those of its convolutions and products."""
    import torch  # noqa: PLC0415
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415

    from jaxcrop.crops import NUM_CLASSES  # noqa: PLC0415

    model = their_model(case, NUM_CLASSES).to("meta")
    image = torch.empty(1, case.bands, case.size, case.size, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(image).sum().backward()
    return case.batch * counter.get_total_flops()


def ours(case: Case) -> Measured:
    """The steps of jaxcrop."""
    import jax  # noqa: PLC0415

    seconds = timed(our_steps(case))
    device = jax.local_devices()[0]
    return Measured(seconds, device.memory_stats()["peak_bytes_in_use"] / 1e9, device.device_kind)


def theirs(case: Case, *, compiled: bool) -> Measured:
    """The steps of PyTorch."""
    import torch  # noqa: PLC0415

    seconds = timed(their_steps(case, compiled=compiled, device="cuda"))
    return Measured(seconds, torch.cuda.max_memory_allocated() / 1e9, torch.cuda.get_device_name())


def timed(steps: Steps) -> list[float]:
    """Seconds a step in each round, once everything is compiled."""
    steps(3)
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        steps(STEPS)
        seconds.append((time.perf_counter() - began) / STEPS)
    return seconds


def work(name: str, peer: str) -> None:
    """Measure one peer, or a run, and print what was found as JSON."""
    if peer == "flops":
        found = flops(CASES[name])
    elif peer == "run":
        with tempfile.TemporaryDirectory() as folder:
            found = run(Path(folder), CASES["unet"], on_device=name == "cached")
    elif peer == "jaxcrop":
        found = ours(CASES[name])
    else:
        found = theirs(CASES[name], compiled=peer == "compiled")
    print(json.dumps(found), flush=True)


def asked(name: str, peer: str):
    """What a process of its own finds."""
    command = [sys.executable, __file__, name, "--work-as", peer]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        sys.exit(f"{peer} failed at {name}")
    return json.loads(result.stdout.splitlines()[-1])


def compare(name: str) -> None:
    """Measure every peer, and print."""
    case, operations = CASES[name], asked(name, "flops")
    found = {peer: Measured(*asked(name, peer)) for peer in PEERS}
    print(f"{name}, {found['jaxcrop'].device}, {operations / case.batch / 1e9:.0f} GFLOP an image")
    rates = {peer: case.batch / statistics.median(found[peer].seconds) for peer in PEERS}
    for peer, (seconds, gigabytes, device) in found.items():
        per_second = rates[peer] / case.batch * operations
        peak = next((peak for kind, peak in PEAKS.items() if kind in device), None)
        share = f", {per_second / peak:.1%} of its peak" if peak else ""
        spread = ", ".join(f"{1000 * one:.1f}" for one in sorted(seconds))
        print(
            f"  {peer}: {rates[peer]:.0f} images/s (a step in {spread} ms), "
            f"{per_second / 1e12:.0f} TFLOP/s{share}, {gigabytes:.1f} GB"
        )
    best = max(("eager", "compiled"), key=rates.get)
    print(
        f"  {rates['jaxcrop'] / rates[best]:.2f} times as many images/s as PyTorch ({best}), "
        f"{found['jaxcrop'].gigabytes / found[best].gigabytes:.2f} of its memory",
        flush=True,
    )


def run(folder: Path, case: Case, *, on_device: bool) -> tuple[float, float]:
    """Images/s, and the share of the time in which the GPU computes, in steps of a run."""
    import jax  # noqa: PLC0415

    from jaxcrop.data.bands import SENTINEL2_BANDS, BandInput  # noqa: PLC0415
    from jaxcrop.data.build import build  # noqa: PLC0415
    from jaxcrop.data.reading import find_records  # noqa: PLC0415
    from jaxcrop.data.sampling import Sampling  # noqa: PLC0415
    from jaxcrop.data.synthetic import write_region  # noqa: PLC0415
    from jaxcrop.training.feed import ImageFeed, cached, streamed  # noqa: PLC0415
    from jaxcrop.training.step import make_cached_steps, make_train_step  # noqa: PLC0415

    write_region(folder / "source", "africa", CHIPS, seed=0)
    build("sact", folder / "source", folder / "records")
    bands = BandInput.scaled(SENTINEL2_BANDS)
    records = find_records(folder / "records", "sact")
    chips = records.chips("train", bands).repeat(TIMES)
    sampling = Sampling(len(chips), case.batch, 0)

    update, state, mesh = our_training(case, "fresh")
    placed, key = jax.tree.map(lambda array: array.sharding, state), jax.random.key(0)
    first, second = range(3 * STEPS), range(3 * STEPS, 6 * STEPS)
    if on_device:
        advance = cached(make_cached_steps(update, placed, mesh), chips, sampling, key, mesh=mesh)
    else:
        feed = ImageFeed(chips, (), sampling, range(0), mesh)
        batches = feed.training(sampling, range(second.stop))
        advance = streamed(make_train_step(update, placed, mesh), batches, key)

    def through(state, steps: range):
        for after, _ in advance(state, steps):
            state = after
        return jax.block_until_ready(state)

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # it would slow what reads
    state = through(state, first)
    with jax.profiler.trace(folder / "trace", create_perfetto_trace=True, profiler_options=options):
        began = time.perf_counter()
        through(state, second)
        seconds = time.perf_counter() - began
    (trace,) = (folder / "trace").rglob("perfetto_trace.json.gz")
    return case.batch * len(second) / seconds, busy(json.loads(gzip.decompress(trace.read_bytes())))


def busy(trace: dict) -> float:
    """The share of the time, between the first kernel and the last, in which any runs."""
    events = trace["traceEvents"]
    named = {
        kind: {
            (event["pid"], event.get("tid")): event["args"]["name"]
            for event in events
            if event.get("name") == f"{kind}_name"
        }
        for kind in ("process", "thread")
    }
    devices = {pid for (pid, _), name in named["process"].items() if "/device:GPU" in name}
    streams = {
        place
        for place, name in named["thread"].items()
        if place[0] in devices and "Stream" in name and "Compute" in name
    }
    kernels = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("ph") == "X"
        and (event["pid"], event["tid"]) in streams
        and not event["name"].startswith(("MemcpyH2D", "MemcpyD2H"))
    )
    return covered(kernels) / (max(end for _, end in kernels) - kernels[0][0])


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """How much spans cover, in the order of their beginnings, which may overlap."""
    total, until = 0.0, float("-inf")
    for begin, end in spans:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join((*CASES, *RUNS))}")
    parser.add_argument("--work-as", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in options.names or (*CASES, *RUNS):
        if options.work_as:
            work(name, options.work_as)
        elif name in RUNS:
            rate, share = asked(name, "run")
            print(f"{name}: {rate:.0f} images/s, the GPU computes {share:.1%} of the time")
        else:
            compare(name)


if __name__ == "__main__":
    main()
