"""How long U-Net heads on one frozen ResNet-50 take beside PyTorch: a region, budgets x seeds.

    chrt -f 10 python experiments/benchmarks/heads.py            # 3 budgets, 5 seeds
    chrt -f 10 python experiments/benchmarks/heads.py --small    # few chips

Draws a synthetic region and builds its records first, which nobody's time counts. Then both do the
same cells: a U-Net over the same frozen ResNet-50 (random weights of timm, converted by
`weights_convert`), trained by AdamW for so many epochs in batches of 8 chips without augmentation,
validated after each on a tenth of the cell's chips, and scored on the same test chips.

Ours is `python -m jaxcrop.sweep` as a user runs it, from its start to its end: a process that
reads, compiles, computes the features, trains every cell and writes the results.

PyTorch does one cell after another, as torchgeo's `SemanticSegmentationTask` with a frozen backbone
would: `smp.Unet` with channels last, eager or compiled, whichever is faster. The smallest cell is
run whole, before and after ours; the others are its seconds a training step and a chip evaluated
times their numbers, since all steps are alike. PyTorch is not charged for reading (its chips lie in
memory as tensors), starting or compiling.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from probes import BATCH, RATE, WEIGHTS, Work, checkpoint, draw, tensors, timed

FULL = Work(regions=1, epochs=3)
SMALL = Work(regions=1, budgets=(10, 20, 40), seeds=2, epochs=4, test=10)

STUDY = """
title: U-Net heads
settings:
  region: africa
  backbone: ssl4eo
  architecture: resnet50
  weights: {weights}
  splits: {lists}
  augmentation: none
  batch-size: {batch}
  batchnorm-batches: 0
  learning-rate: {rate}
  epochs: {epochs}
parts:
  heads: {{method: heads, decoder: unet, budget: {budgets}, seed: {seeds}}}
"""


def planned(records, lists: Path, budget: int):
    """The chips of a cell."""
    from jaxcrop.data.experiment import plan  # noqa: PLC0415

    return plan({"africa": records}, "africa", budget=budget, by=str(lists))


def steps_of(chips: int, epochs: int) -> int:
    """Batches that so many passes over the training chips have."""
    from jaxcrop.data.sampling import Sampling  # noqa: PLC0415

    return Sampling(chips, min(BATCH, chips), seed=0).steps(epochs)


def lists(records, work: Work, folder: Path) -> Path:
    """Lists of the chips that budgets are drawn from and that test; the third is of no use."""
    from jaxcrop.data.chip_lists import write_lists  # noqa: PLC0415
    from jaxcrop.data.index import index_of  # noqa: PLC0415

    ids = np.random.default_rng(0).permutation(index_of(records).chip_id).tolist()
    test, (unused, *pool) = ids[: work.test], ids[work.test :]
    write_lists({"train": tuple(pool), "validation": (unused,), "test": tuple(test)}, folder)
    return folder


def ours(records: Path, weights: Path, lists: Path, work: Work, folder: Path) -> float:
    """Seconds of the sweep; its results stay in `folder`."""
    study = folder / "study.yaml"
    values = {
        **{"weights": weights, "lists": lists, "batch": BATCH, "rate": RATE},
        **{"epochs": work.epochs, "budgets": list(work.budgets), "seeds": [*range(work.seeds)]},
    }
    study.write_text(textwrap.dedent(STUDY).format(**values))
    command = [sys.executable, "-m", "jaxcrop.sweep", str(study), "--data-dir", str(records)]
    command += ["--out", str(folder / "out"), "--features", str(folder / "features")]
    environment = {**os.environ, "JAXCROP_CACHE": str(folder / "cache")}
    with (folder / "log").open("w") as log:
        seconds, done = timed(
            lambda: subprocess.run(command, env=environment, stdout=log, stderr=log, check=False)
        )
    if done.returncode:
        sys.exit((folder / "log").read_text()[-3000:])
    return seconds


class Peer:
    """PyTorch's cells."""

    def __init__(self, encoder: Callable, records, lists: Path, work: Work):
        import segmentation_models_pytorch as smp  # noqa: PLC0415
        import torch  # noqa: PLC0415

        from jaxcrop.crops import NUM_CLASSES  # noqa: PLC0415
        from jaxcrop.weights import published  # noqa: PLC0415

        self._torch, self._work = torch, work
        scale = published(WEIGHTS).band_input
        experiment = planned(records, lists, work.budgets[0])
        self._chips = {
            split: tensors(experiment.chips(split, scale))
            for split in ("train", "validation", "test")
        }
        state = encoder().state_dict()

        def unet():
            torch.manual_seed(0)
            model = smp.Unet("resnet50", encoder_weights=None, in_channels=13, classes=NUM_CLASSES)
            model.encoder.load_state_dict(dict(state))
            model.encoder.eval().requires_grad_(requires_grad=False)
            return model.to(memory_format=torch.channels_last)

        self._unet = unet
        self.fastest = {}
        self._wrap = lambda model: model
        for name, wrap in (("eager", self._wrap), ("compiled", torch.compile)):
            step = partial(self._step(wrap(unet())), 0)
            self.fastest[name] = statistics.median([timed(step)[0] for _ in range(5)])
        if self.fastest["compiled"] < self.fastest["eager"]:
            self._wrap = torch.compile

    def _step(self, model) -> Callable:
        torch = self._torch
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01, fused=True)
        image, label = self._chips["train"]

        def step(number: int) -> None:
            order = np.random.default_rng(number).permutation(len(image))[:BATCH]
            chosen = torch.from_numpy(order)
            out = model(image[chosen])
            loss = torch.nn.functional.cross_entropy(out, label[chosen], ignore_index=0)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return step

    def _evaluate(self, model, split: str) -> float:
        torch = self._torch
        image, label = self._chips[split]
        known = right = 0
        with torch.no_grad():
            for start in range(0, len(image), BATCH):
                out = model(image[start : start + BATCH])
                truth = label[start : start + BATCH]
                known += int((truth > 0).sum())
                right += int(((out.argmax(1) == truth) & (truth > 0)).sum())
        return right / known

    def smallest_cell(self) -> tuple[float, float]:
        """Seconds a training step and an evaluated chip of the smallest budget take."""
        chips = len(self._chips["train"][0])
        model = self._wrap(self._unet())
        step = self._step(model)
        step(0)  # compiles
        steps, evaluated, training, evaluating = 0, 0, 0.0, 0.0
        for epoch in range(self._work.epochs):
            count = max(1, steps_of(chips, epoch + 1) - steps)
            training += timed(lambda count=count: [step(number) for number in range(count)])[0]
            steps += count
            self._modes(model, training=False)
            if not epoch:
                self._evaluate(model, "validation")  # compiles
            evaluating += timed(lambda: self._evaluate(model, "validation"))[0]
            evaluated += len(self._chips["validation"][0])
            self._modes(model, training=True)
        self._modes(model, training=False)
        self._evaluate(model, "test")
        evaluating += timed(lambda: self._evaluate(model, "test"))[0]
        return training / steps, evaluating / (evaluated + len(self._chips["test"][0]))

    def _modes(self, model, *, training: bool) -> None:
        model.train(training)
        model.encoder.eval()  # frozen, statistics and all


def lines(work: Work, folder: Path) -> Iterator[str]:
    """Measure, and say what was found."""
    (records,) = draw(folder / "records", work._replace(test=work.test + 1)).values()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        weights, encoder = checkpoint(place)
        chips = lists(records, work, place / "lists")
        peer = Peer(encoder, records, chips, work)
        before = peer.smallest_cell()
        seconds = ours(folder / "records", weights, chips, work, place)
        after = peer.smallest_cell()
        sizes = [planned(records, chips, budget).sizes for budget in work.budgets]
        results = [line for line in (place / "log").read_text().splitlines() if "%" in line]
    step, chip = (statistics.mean(pair) for pair in zip(before, after, strict=True))
    steps = sum(steps_of(size["train"]["africa"], work.epochs) for size in sizes)
    evaluated = sum(work.epochs * size["validation"]["africa"] + work.test for size in sizes)
    theirs = work.seeds * (steps * step + evaluated * chip)
    yield (
        f"{len(work.budgets) * work.seeds} cells: budgets {work.budgets}, {work.seeds} seeds, "
        f"{work.epochs} epochs in batches of {BATCH}, {work.test} test chips"
    )
    yield (
        f"PyTorch: {step:.2f} s a step ({before[0]:.2f} before ours, {after[0]:.2f} after), "
        f"{chip:.3f} s a chip evaluated; a step "
        + ", ".join(f"{name} {took:.2f} s" for name, took in peer.fastest.items())
    )
    yield (
        f"PyTorch, all cells, by these: {theirs:,.0f} s ({work.seeds * steps:,} steps and "
        f"{work.seeds * evaluated:,} chips evaluated)"
    )
    yield f"jaxcrop, all cells, measured: {seconds:,.0f} s"
    yield f"ratio: {seconds / theirs:.2f}"
    yield from results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="few chips, two seeds")
    parser.add_argument("--folder", type=Path, help="keep the drawn records here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for line in lines(SMALL if options.small else FULL, options.folder or Path(temporary)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
