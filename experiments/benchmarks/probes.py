"""How long linear heads on one frozen ResNet-50 take beside PyTorch: regions x budgets x seeds.

    python experiments/benchmarks/probes.py            # 5 regions, 3 budgets, 5 seeds
    python experiments/benchmarks/probes.py --small    # one region, few chips: a few minutes

Draws synthetic regions and builds their records first, which nobody's time counts. Then both do the
same cells: a linear head over the five maps of the same frozen ResNet-50 (random weights of timm,
converted by `weights_convert`), trained by AdamW for so many epochs in batches of 8 chips without
augmentation, and scored on every labelled pixel of the same test chips.

PyTorch does one cell after another, as torchgeo's `SemanticSegmentationTask` with a frozen backbone
would: every step runs the encoder (no gradient, channels last, eager or compiled, whichever is
faster) and the head on all pixels of a batch. The smallest cell is run whole, before and after
ours; the others are its seconds a step and a test batch times their number, since all steps are
alike. PyTorch is not charged for reading (its chips lie in memory as tensors), starting or
compiling.

Ours is everything from the records on: reading, hypercolumns of 64 sampled pixels of each training
chip, written to disk and mapped, all heads of a region and budget together, and one pass over the
test chips for all heads of a region; the time to compile is in it, and told. What differs: the head
sees 64 pixels of a chip, drawn by class and weighted, instead of all; and standardised features.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

BATCH = 8
RATE = 1e-3
WEIGHTS = "ssl4eo-resnet50-moco"
"""The published set whose layout, bands and scale the random weights have."""


class Work(NamedTuple):
    """The cells: how many regions, labelled chips, seeds, epochs and test chips."""

    regions: int = 5
    budgets: tuple[int, ...] = (10, 50, 200)
    seeds: int = 5
    epochs: int = 10
    test: int = 50


SMALL = Work(regions=1, budgets=(8, 16, 32), seeds=5, epochs=10, test=16)


def steps_of(budget: int, epochs: int) -> int:
    """Batches that the epochs of a cell have."""
    return -(-budget * epochs // BATCH)


def draw(folder: Path, work: Work) -> dict:
    """The records of each region, drawn unless the folder has them."""
    from jaxcrop.data.build import build  # noqa: PLC0415
    from jaxcrop.data.reading import find_records  # noqa: PLC0415
    from jaxcrop.data.synthetic import write_region  # noqa: PLC0415
    from jaxcrop.regions import REGIONS  # noqa: PLC0415

    records = {}
    for region in list(REGIONS)[: work.regions]:
        dataset = REGIONS[region].dataset
        if find_records(folder, dataset) is None:
            write_region(folder / region, region, work.budgets[-1] + work.test, seed=0)
            build(dataset, folder / region, folder)
            shutil.rmtree(folder / region)
        records[region] = find_records(folder, dataset)
    return records


def divided(records, work: Work) -> tuple:
    """The training and the test chips of a region."""
    from jaxcrop.data.index import index_of  # noqa: PLC0415
    from jaxcrop.features.maps import ChipSet  # noqa: PLC0415

    index = index_of(records)
    ids = np.random.default_rng(0).permutation(index.chip_id).tolist()
    most = work.budgets[-1]
    train, test = ids[:most], ids[most : most + work.test]
    return ChipSet(records, index, tuple(train)), ChipSet(records, index, tuple(test))


def labelled(work: Work, budget: int, seed: int) -> np.ndarray:
    """The places of a cell's chips among the training chips of its region."""
    return np.random.default_rng(seed).permutation(work.budgets[-1])[:budget]


def ours(records: dict, weights: Path, work: Work) -> tuple[dict, dict]:
    """Seconds by part of the work, and the accuracy of each cell."""
    import jax  # noqa: PLC0415

    from jaxcrop.crops import NUM_CLASSES  # noqa: PLC0415
    from jaxcrop.features.backbones import FrozenBackbone  # noqa: PLC0415
    from jaxcrop.features.store import FeatureStore  # noqa: PLC0415
    from jaxcrop.models.segmenter import abstract_segmenter  # noqa: PLC0415
    from jaxcrop.probes.classifiers import LinearClassifiers, train_heads  # noqa: PLC0415
    from jaxcrop.probes.pixels import pixel_features  # noqa: PLC0415
    from jaxcrop.probes.scoring import confusions  # noqa: PLC0415
    from jaxcrop.training.metrics import metrics  # noqa: PLC0415
    from jaxcrop.weights import load_weights, read_manifest  # noqa: PLC0415

    compiled = [0.0]
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(seconds * ("backend_compile" in event))
    )
    seconds = dict.fromkeys(("features", "heads", "scores"), 0.0)
    accuracy = {}
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder))
        _, seen = read_manifest(weights)
        model = abstract_segmenter("resnet50", "linear", len(seen.bands), NUM_CLASSES)
        load_weights(model, weights)
        backbone = FrozenBackbone.of(model, "resnet50", seen)
        for region, of_region in records.items():
            train, test = divided(of_region, work)
            began = time.perf_counter()
            pixels = pixel_features(backbone, train, store=store, batch_size=BATCH)
            seconds["features"] += time.perf_counter() - began
            began = time.perf_counter()
            heads = [
                train_heads(
                    *pixels[:3],
                    [labelled(work, budget, seed) for seed in range(work.seeds)],
                    learning_rate=[RATE] * work.seeds,
                    seeds=range(work.seeds),
                    steps=steps_of(budget, work.epochs),
                    batch_size=BATCH,
                )
                for budget in work.budgets
            ]
            heads = jax.block_until_ready(
                LinearClassifiers(*map(np.concatenate, zip(*heads, strict=True)))
            )
            seconds["heads"] += time.perf_counter() - began
            began = time.perf_counter()
            counted = confusions(backbone, test, heads, batch_size=BATCH).sum(axis=1)
            seconds["scores"] += time.perf_counter() - began
            scores = metrics(counted)["overall_accuracy"].reshape(-1, work.seeds)
            accuracy |= {(region, b): s for b, s in zip(work.budgets, scores, strict=True)}
    return {**seconds, "of which compiling": sum(compiled)}, accuracy


def checkpoint(folder: Path) -> tuple[Path, Callable]:
    """Random weights of timm: converted to ours, and a function that makes the encoder of them."""
    from weights_convert.convert import convert  # noqa: PLC0415
    from weights_convert.originals import import_torchvision  # noqa: PLC0415

    import_torchvision()
    import timm  # noqa: PLC0415
    import torch  # noqa: PLC0415

    torch.manual_seed(0)
    state = timm.create_model("resnet50", in_chans=13, num_classes=0).state_dict()
    torch.save(state, folder / "random.pth")
    convert(folder / "random.pth", folder / "random", like=WEIGHTS)

    def encoder():
        module = timm.create_model("resnet50", in_chans=13, features_only=True)
        missing = module.load_state_dict(state, strict=False)
        assert not missing.missing_keys, missing.missing_keys
        return module.eval().requires_grad_(requires_grad=False)

    return folder / "random", encoder


def tensors(chips) -> tuple:
    """Chips as PyTorch takes them: images with channels last, and labels."""
    import torch  # noqa: PLC0415

    image = np.stack([chip.image for chip in chips]).astype(np.float32) / 10_000
    label = np.stack([chip.label for chip in chips]).astype(np.int64)
    image = torch.from_numpy(image.transpose(0, 3, 1, 2))
    return image.contiguous(memory_format=torch.channels_last), torch.from_numpy(label)


class Peer:
    """PyTorch's cells."""

    def __init__(self, encoder: Callable, records, work: Work):
        import torch  # noqa: PLC0415

        from jaxcrop.crops import NUM_CLASSES  # noqa: PLC0415
        from jaxcrop.weights import published  # noqa: PLC0415

        self._torch, self._classes, self._work = torch, NUM_CLASSES, work
        self._encoder = encoder().to(memory_format=torch.channels_last)
        self._channels = self._encoder.feature_info.channels()
        scale = published(WEIGHTS).band_input
        train, test = divided(records, work)
        first = labelled(work, work.budgets[0], 0)
        chips = train.chips(scale)
        self._train = tensors([chips[int(place)] for place in first])
        self._test = tensors(list(test.chips(scale)))
        features = self._features
        self.fastest = {"eager": self._seconds_of(features)}
        compiled = torch.compile(features)
        self.fastest["compiled"] = self._seconds_of(compiled)
        if self.fastest["compiled"] < self.fastest["eager"]:
            self._features = compiled

    def _features(self, image):
        return self._encoder(image)

    def _seconds_of(self, features: Callable) -> float:
        """Seconds of the encoder for a batch, after the first."""
        with self._torch.no_grad():
            took = [timed(lambda: features(self._train[0][:BATCH]))[0] for _ in range(4)]
        return statistics.median(took[1:])

    def _logits(self, head, image):
        torch = self._torch
        with torch.no_grad():
            maps = self._features(image)
        resized = (
            torch.nn.functional.interpolate(part(x), maps[0].shape[2:], mode="bilinear")
            for part, x in zip(head, maps, strict=True)
        )
        return torch.nn.functional.interpolate(sum(resized), image.shape[2:], mode="bilinear")

    def smallest_cell(self) -> tuple[float, float, float]:
        """Seconds a step and a test batch, and the accuracy, of the smallest budget and seed 0."""
        from jaxcrop.data.sampling import Sampling  # noqa: PLC0415

        torch, work = self._torch, self._work
        torch.manual_seed(0)
        head = torch.nn.ModuleList(
            torch.nn.Conv2d(c, self._classes, 1, bias=number == 0)
            for number, c in enumerate(self._channels)
        )
        for parameter in head.parameters():
            torch.nn.init.zeros_(parameter)
        optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.01, fused=True)
        image, label = self._train
        sampling = Sampling(work.budgets[0], BATCH, seed=0)

        def step(number: int) -> None:
            chosen = torch.from_numpy(sampling.batch(number))
            loss = torch.nn.functional.cross_entropy(
                self._logits(head, image[chosen]), label[chosen], ignore_index=0
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        steps = steps_of(work.budgets[0], work.epochs)
        training, _ = timed(lambda: [step(number) for number in range(steps)])

        def score() -> float:
            known, right = 0, 0
            present = torch.zeros(self._classes, dtype=torch.bool)
            present[label.unique()] = True
            present[0] = False
            with torch.no_grad():
                for start in range(0, work.test, BATCH):
                    part = slice(start, start + BATCH)
                    logits = self._logits(head, self._test[0][part])
                    logits = logits.masked_fill(~present[:, None, None], -torch.inf)
                    truth = self._test[1][part]
                    known += int((truth > 0).sum())
                    right += int(((logits.argmax(1) == truth) & (truth > 0)).sum())
            return right / known

        testing, accuracy = timed(score)
        return training / steps, testing / -(-work.test // BATCH), accuracy


def timed(function: Callable) -> tuple:
    """Seconds that a call took, and what it returned."""
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def lines(work: Work, folder: Path) -> Iterator[str]:
    """Measure, and say what was found."""
    records = draw(folder, work)
    with tempfile.TemporaryDirectory() as temporary:
        weights, encoder = checkpoint(Path(temporary))
        region, of_region = next(iter(records.items()))
        peer = Peer(encoder, of_region, work)
        before = peer.smallest_cell()
        seconds, accuracy = ours(records, weights, work)
        after = peer.smallest_cell()
    step, batch, theirs = (statistics.mean(pair) for pair in zip(before, after, strict=True))
    steps = sum(steps_of(budget, work.epochs) for budget in work.budgets)
    tests = len(work.budgets) * -(-work.test // BATCH)
    peer_total = work.regions * work.seeds * (steps * step + tests * batch)
    parts = ("features", "heads", "scores")
    total = sum(seconds[part] for part in parts)
    cells = work.regions * len(work.budgets) * work.seeds
    yield (
        f"{cells} cells: {work.regions} regions, budgets {work.budgets}, {work.seeds} seeds, "
        f"{work.epochs} epochs in batches of {BATCH}, {work.test} test chips"
    )
    yield (
        f"PyTorch: {step:.2f} s a step ({before[0]:.2f} before ours, {after[0]:.2f} after), "
        f"{batch:.2f} s a test batch; encoder alone "
        + ", ".join(f"{name} {took:.2f} s" for name, took in peer.fastest.items())
    )
    yield (
        f"PyTorch, all cells, by these: {peer_total:,.0f} s ({work.regions * work.seeds * steps:,} "
        f"steps and {work.regions * work.seeds * tests:,} test batches)"
    )
    yield (
        f"jaxcrop, all cells, measured: {total:,.0f} s ("
        + ", ".join(f"{part} {took:.1f} s" for part, took in seconds.items())
        + ")"
    )
    yield f"ratio: 1/{peer_total / total:.0f}"
    yield (
        f"OA of the smallest cell, {region}, budget {work.budgets[0]}, seed 0: "
        f"PyTorch {theirs:.1%}, jaxcrop {accuracy[region, work.budgets[0]][0]:.1%}"
    )
    for (region, budget), scores in accuracy.items():
        low, high = scores.min(), scores.max()
        yield f"  {region} {budget}: OA {scores.mean():.1%} ({low:.1%} to {high:.1%} by seed)"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="one region, few chips")
    parser.add_argument("--epochs", type=int, help="passes over each cell's chips (default: 10)")
    parser.add_argument(
        "--budgets", type=int, nargs="+", help="labelled chips (default: 10 50 200)"
    )
    parser.add_argument("--folder", type=Path, help="keep the drawn records here")
    options = parser.parse_args()
    work = SMALL if options.small else Work()
    if options.epochs:
        work = work._replace(epochs=options.epochs)
    if options.budgets:
        work = work._replace(budgets=tuple(sorted(options.budgets)))
    with tempfile.TemporaryDirectory() as temporary:
        for line in lines(work, options.folder or Path(temporary)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
