"""How long a training step takes beside PyTorch's on CPU, and how much memory.

    python experiments/benchmarks/steps.py            # every case
    python experiments/benchmarks/steps.py unet-frozen vit

Each peer runs in a process of its own (needs the `torch` extra), never at the same time as the
other: the two take turns, with as many steps each as jaxcrop runs as one program. PyTorch runs with
channels last and a fused AdamW, eager and compiled, and the faster of the two is compared. Both
update the same parameters by the same loss of the same shapes. Prints the median of the ratios and
each process's peak memory.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxcrop.training.step import TrainState


class Case(NamedTuple):
    """What is trained: a backbone under a decoder, on a batch of square images of `bands`."""

    architecture: str
    decoder: str
    frozen: bool
    batch: int
    size: int
    bands: int = 13
    dtype: str = "float32"


CASES = {
    "unet-frozen": Case("resnet50", "unet", frozen=True, batch=8, size=256),
    "unet": Case("resnet50", "unet", frozen=False, batch=8, size=256),
    "fpn": Case("resnet50", "fpn", frozen=False, batch=4, size=256, bands=9),
    "vit": Case("vit-s16", "linear", frozen=False, batch=8, size=224),
    "swin": Case("swin-v2-b", "linear", frozen=False, batch=4, size=256),
}

Steps = Callable[[int], None]
"""So many updates of the model, one after another; returns when they are done."""


class Training(NamedTuple):
    """What jaxcrop's training loop compiles, and the state that it begins in, on JAX's devices."""

    update: Callable
    state: "TrainState"
    mesh: "Mesh"


def our_training(case: Case, augmentation: str) -> Training:
    """Training by AdamW and cross-entropy, from random weights."""
    import jax  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    from flax import nnx  # noqa: PLC0415

    from jaxcrop.config import LossConfig, OptimizerConfig, TuningConfig  # noqa: PLC0415
    from jaxcrop.crops import NUM_CLASSES  # noqa: PLC0415
    from jaxcrop.data.augment import Augmentation  # noqa: PLC0415
    from jaxcrop.data.bands import SENTINEL2_BANDS, BandInput  # noqa: PLC0415
    from jaxcrop.mesh import data_mesh, placement  # noqa: PLC0415
    from jaxcrop.models.segmenter import random_segmenter  # noqa: PLC0415
    from jaxcrop.training.groups import parameter_groups  # noqa: PLC0415
    from jaxcrop.training.losses import make_loss  # noqa: PLC0415
    from jaxcrop.training.network import values_of  # noqa: PLC0415
    from jaxcrop.training.optimizer import adamw  # noqa: PLC0415
    from jaxcrop.training.step import Task, begun, make_update, training_network  # noqa: PLC0415

    tuning = TuningConfig(tune="frozen" if case.frozen else "full")
    model = random_segmenter(case.architecture, case.decoder, case.bands, NUM_CLASSES, seed=0)
    network, values, mesh = training_network(model, tuning), values_of(model), data_mesh()
    groups = parameter_groups(network.names(nnx.Param), tuning)
    rates = {name: group.rate for group in groups for name in group.parameters}
    params = {name: values[name] for name, rate in rates.items() if rate}
    optimizer = adamw(OptimizerConfig(learning_rate=1e-4), dict.fromkeys(params, 1.0))
    statistics = {name: values[name] for name in network.moving}
    frozen = {name: value for name, value in values.items() if name not in params | statistics}
    state = replace(begun(params, statistics, optimizer, patience=1), frozen=frozen)
    state = jax.device_put(state, placement(state, mesh, spread=False))
    bands = BandInput.scaled(SENTINEL2_BANDS[: case.bands])
    loss = make_loss(LossConfig(), np.ones(NUM_CLASSES, int))
    task = Task(network, bands, case.dtype, loss, mesh)
    update = make_update(task, optimizer, augmentation=Augmentation(augmentation))
    return Training(update, state, mesh)


def our_steps(case: Case) -> Steps:
    """The steps of jaxcrop's training loop on images that the host sends, without augmentation."""
    import jax  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    from jaxcrop.compiling import on_cpu  # noqa: PLC0415
    from jaxcrop.crops import NUM_CLASSES  # noqa: PLC0415
    from jaxcrop.data.reading import Batch  # noqa: PLC0415
    from jaxcrop.data.sampling import Sampling  # noqa: PLC0415
    from jaxcrop.mesh import put_batch  # noqa: PLC0415
    from jaxcrop.training.feed import streamed, streamed_together  # noqa: PLC0415
    from jaxcrop.training.step import make_few_steps, make_train_step  # noqa: PLC0415

    update, state, mesh = our_training(case, "none")
    placed, key = jax.tree.map(lambda array: array.sharding, state), jax.random.key(0)

    generator = np.random.default_rng(0)
    shape = (case.batch, case.size, case.size)
    image = generator.integers(10_000, size=(*shape, case.bands), dtype=np.uint16)
    label = generator.integers(NUM_CLASSES, size=shape, dtype=np.uint8)
    numbers = np.arange(case.batch, dtype=np.uint32)
    batches = repeat(put_batch(Batch(image, label, numbers), mesh, case.batch))
    if on_cpu():
        sampling = Sampling(case.batch, case.batch, seed=0)
        program = make_few_steps(update, placed, mesh)
        advance = streamed_together(program, batches, sampling, key)
    else:
        advance = streamed(make_train_step(update, placed, mesh), batches, key)

    def steps(count: int) -> None:
        nonlocal state
        for after, _ in advance(state, range(count)):
            state = after
        jax.block_until_ready(state)

    return steps


def their_steps(case: Case, *, compiled: bool, device: str = "cpu") -> Steps:
    """The steps of PyTorch."""
    import torch  # noqa: PLC0415

    from jaxcrop.crops import IGNORE, NUM_CLASSES  # noqa: PLC0415

    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    model = their_model(case, NUM_CLASSES).to(device, memory_format=torch.channels_last)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    loss_of = torch.nn.CrossEntropyLoss(ignore_index=IGNORE)
    shape = (case.batch, case.size, case.size)
    image = torch.randn(case.batch, case.bands, case.size, case.size)
    image = image.to(device, memory_format=torch.channels_last)
    label = torch.randint(NUM_CLASSES, shape, device=device)
    narrow = case.dtype != "float32"

    def loss() -> torch.Tensor:
        with torch.autocast(device, getattr(torch, case.dtype), enabled=narrow):
            return loss_of(model(image), label)

    if compiled:
        loss = torch.compile(loss)

    def steps(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize()

    return steps


def their_model(case: Case, num_classes: int):
    """The same model of smp or satlaspretrain_models, or timm's or torchvision's under our head."""
    from weights_convert.originals import import_torchvision  # noqa: PLC0415

    import_torchvision()
    import torch  # noqa: PLC0415

    from weights_convert.originals import original  # noqa: PLC0415

    if case.decoder == "unet":
        import segmentation_models_pytorch as smp  # noqa: PLC0415

        model = smp.Unet(
            case.architecture, encoder_weights=None, in_channels=case.bands, classes=num_classes
        )
        model.train()
        if case.frozen:
            model.encoder.eval().requires_grad_(requires_grad=False)
        return model

    if case.decoder == "fpn":
        import satlaspretrain_models as satlas  # noqa: PLC0415

        class SatlasSegmenter(satlas.Model):
            """Without the softmax that its head ends with."""

            def forward(self, image):
                return self.head.layers(self.upsample(self.fpn(self.backbone(image)))[0])

        kind = satlas.Backbone[case.architecture.upper()]
        options = {"head": satlas.Head.SEGMENT, "num_categories": num_classes}
        return SatlasSegmenter(case.bands, backbone=kind, fpn=True, **options)

    class LinearSegmenter(torch.nn.Module):
        """As `jaxcrop.models.linear`: scores of every map, summed at the size of the first."""

        def __init__(self):
            super().__init__()
            library = "timm-vit" if case.architecture.startswith("vit") else "torchvision-swin"
            theirs = original(library, "plain", case.architecture, case.bands, size=case.size)
            self.backbone = theirs.module.eval()  # no branch is dropped, as ours drops none
            self.stages = theirs.stages
            with torch.no_grad():
                maps = self.stages(torch.zeros(1, case.bands, case.size, case.size))
            self.classifiers = torch.nn.ModuleList(
                torch.nn.Conv2d(x.shape[1], num_classes, 1, bias=number == 0)
                for number, x in enumerate(maps)
            )

        def forward(self, image):
            maps = self.stages(image)
            resized = (
                torch.nn.functional.interpolate(classifier(x), maps[0].shape[2:], mode="bilinear")
                for classifier, x in zip(self.classifiers, maps, strict=True)
            )
            return torch.nn.functional.interpolate(sum(resized), image.shape[2:], mode="bilinear")

    return LinearSegmenter()


PEERS = {
    "jaxcrop": our_steps,
    "eager": lambda case: their_steps(case, compiled=False),
    "compiled": lambda case: their_steps(case, compiled=True),
}


def work(case: str, peer: str) -> None:
    """Run as many steps as each line of input says; print their seconds, at last the peak MB."""
    steps = PEERS[peer](CASES[case])
    steps(2)
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        steps(int(line))
        print(time.perf_counter() - began, flush=True)
    # Not getrusage: what it says of a child begins with the memory of its parent.
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6, flush=True)


class Worker:
    """A process that takes steps when it is asked to."""

    def __init__(self, case: str, peer: str):
        command = [sys.executable, __file__, case, "--work-as", peer]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._line()

    def _line(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            sys.exit("a worker failed")
        return line

    def seconds(self, steps: int) -> float:
        """How long one of so many steps takes."""
        print(steps, file=self._process.stdin, flush=True)
        return float(self._line()) / steps

    def peak(self) -> float:
        """Peak memory in MB of the process, which ends."""
        self._process.stdin.close()
        peak = float(self._line())
        self._process.wait()
        return peak


def compare(case: str, rounds: int) -> None:
    """Let the peers take turns, and print."""
    from jaxcrop.training.step import AT_ONCE  # noqa: PLC0415

    ours = Worker(case, "jaxcrop")
    theirs = {name: Worker(case, name) for name in ("eager", "compiled")}
    fastest = {name: min(w.seconds(AT_ONCE) for _ in range(2)) for name, w in theirs.items()}
    best = min(fastest, key=fastest.get)
    pairs = [(ours.seconds(AT_ONCE), theirs[best].seconds(AT_ONCE)) for _ in range(rounds)]
    ratios = [one / other for one, other in pairs]
    one, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    peaks = {name: worker.peak() for name, worker in theirs.items()}
    others = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in fastest.items())
    print(
        f"{case}: {one:.2f} s, PyTorch ({best}; best of two: {others}) {other:.2f} s, "
        f"{statistics.median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f}); "
        f"peak memory {ours.peak():.0f} MB, PyTorch {peaks[best]:.0f} MB",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often each takes its turn")
    parser.add_argument("--work-as", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for case in options.cases or CASES:
        if options.work_as:
            work(case, options.work_as)
        else:
            compare(case, options.rounds)


if __name__ == "__main__":
    main()
