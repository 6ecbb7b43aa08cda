"""Every layout of published weights against the original library's own model.

    python experiments/parity/matrix.py --out experiments/results/parity.md

For each row: the original model with random weights, batch statistics, biases and scales; its file
as the authors lay it out; our conversion of that file; and both models on the same images. The
table says how far apart they are, relative to the original: over all maps, for the gradient of the
input, and for our model in bfloat16 against itself in float32.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import torch
from checkpoints import randomise, wrapped
from safetensors.torch import save_file

from jaxcrop.files import replacing
from weights_convert.oracle import (
    FEATURE_TOLERANCE,
    GRADIENT_TOLERANCE,
    compare_gradients,
    compare_maps,
    converted_model,
    our_maps,
    random_image,
    torch_maps,
)
from weights_convert.originals import Original, original

BFLOAT16_TOLERANCE = 2e-2

_INTRODUCTION = f"""# Parity of every published layout with the original library

Made by `python experiments/parity/matrix.py --out experiments/results/parity.md`. Random weights,
biases, scales and batch statistics in the original library's own model; its file as the authors lay
it out, converted by us; both models on the same image. *maps*: largest difference of any feature
map (of the decoder too, where the file has one) relative to the largest value, allowed
{FEATURE_TOLERANCE:.0e}; *input gradient*: the same for the gradient of a weighted sum of all maps,
in float64, allowed {GRADIENT_TOLERANCE:.0e} (in float32 rounding puts a few activations on the
other side of a ReLU's zero, in PyTorch as here, and each changes the gradient by more than
rounding); *bfloat16*: ours computing in bfloat16 against ours in float32, relative L2 norm of the
worst map, allowed {BFLOAT16_TOLERANCE:.0e}.

torchvision's ViTs take images of 224 pixels alone, timm's Swin-v2 other windows at other sizes than
256. `plain` is a bare state dict, as torchgeo, timm and torchvision publish them.
"""


@dataclass(frozen=True)
class Case:
    """A layout (grammar and wrapper), an architecture, and the published set the file is like."""

    like: str
    grammar: str
    wrapper: str
    architecture: str
    channels: int
    suffix: str = "pth"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Images that the original model takes: 224, 256, and an odd multiple of its stride."""
        if self.grammar == "torchvision-vit":
            return (224,)  # it refuses any other
        if self.grammar == "timm-swin":
            return (256,)  # it has other windows at any other
        if self.wrapper in ("satlas", "smp"):
            return (224, 256, 288)  # the decoder asks for whole pixels of the coarsest map
        return {
            "resnet": (224, 256, 288),
            "16": (224, 256, 240),
            "14": (224, 252, 266),
        }.get(self._stride, (224, 256, 200))

    @property
    def _stride(self) -> str:
        """What the sizes of images depend on: a ResNet's pyramid, or the patch of a ViT."""
        return "resnet" if "resnet" in self.grammar else self.architecture[-2:]


@dataclass(frozen=True)
class Result:
    """The largest relative differences of a case at one size; `bfloat16` is an L2 norm."""

    case: Case
    size: int
    features: float
    gradient: float
    bfloat16: float

    @property
    def passes(self) -> bool:
        """Whether all three are within the bars."""
        return (
            self.features <= FEATURE_TOLERANCE
            and self.gradient <= GRADIENT_TOLERANCE
            and self.bfloat16 <= BFLOAT16_TOLERANCE
        )


def _cases() -> tuple[Case, ...]:
    resnets = {"resnet18": "ssl4eo-resnet18-moco", "resnet50": "ssl4eo-resnet50-moco"}
    vits = ("vit-s16", "vit-b16", "vit-l16", "vit-h14")
    swins = ("swin-v2-t", "swin-v2-b")
    return (
        *(Case(like, "timm-resnet", "plain", name, 13) for name, like in resnets.items()),
        *(Case(f"{like}-rgb", "timm-resnet", "plain", name, 3) for name, like in resnets.items()),
        *(Case(like, "timm-resnet", "moco", name, 13) for name, like in resnets.items()),
        Case("ssl4eo-resnet50-dino", "timm-resnet", "dino", "resnet50", 13),
        Case("ssl4eo-vit-s16-moco", "timm-vit", "moco", "vit-s16", 13),
        Case("ssl4eo-vit-s16-dino", "timm-vit", "dino", "vit-s16", 13),
        *(Case(f"ssl4eo-{name}-mae", "timm-vit", "plain", name, 13) for name in vits),
        *(Case(f"ssl4eo-{name}-mae", "timm-vit", "mae", name, 13) for name in vits[:3]),
        *(Case(f"ssl4eo-{n}-softcon", "timm-vit", "plain", n, 13) for n in ("vit-s14", "vit-b14")),
        Case("ssl4eo-l-resnet18-tm-toa-moco", "timm-resnet", "plain", "resnet18", 7),
        Case("ssl4eo-l-resnet50-oli-tirs-toa-moco", "timm-resnet", "plain", "resnet50", 11),
        Case("ssl4eo-l-vit-s16-etm-sr-simclr", "timm-vit", "plain", "vit-s16", 6),
        *(
            Case(f"satlas-{name}-si-ms", grammar, "satlas", name, 9)
            for name, grammar in (
                ("resnet50", "torchvision-resnet"),
                ("resnet152", "torchvision-resnet"),
                ("swin-v2-t", "torchvision-swin"),
                ("swin-v2-b", "torchvision-swin"),
            )
        ),
        *(
            Case(f"satlas-{name}-si-ms-torchgeo", grammar, "plain", name, 9)
            for name, grammar in (
                ("resnet50", "timm-resnet"),
                ("resnet152", "timm-resnet"),
                ("swin-v2-t", "torchvision-swin"),
                ("swin-v2-b", "torchvision-swin"),
            )
        ),
        *(
            Case(f"imagenet-{name}-v1", "torchvision-resnet", "plain", name, 3)
            for name in ("resnet18", "resnet50", "resnet152")
        ),
        Case("imagenet-resnet50-a1", "timm-resnet", "plain", "resnet50", 3, "safetensors"),
        *(Case(f"imagenet-{n}-v1", "torchvision-vit", "plain", n, 3) for n in vits[1:3]),
        *(Case(f"imagenet-{n}-augreg", "timm-vit", "plain", n, 3, "safetensors") for n in vits[:3]),
        *(Case(f"imagenet-{n}-v1", "torchvision-swin", "plain", n, 3) for n in swins),
        *(
            Case(f"imagenet-{n}-microsoft", "timm-swin", "plain", n, 3, "safetensors")
            for n in swins
        ),
        *(
            Case(like, "timm-resnet", "smp", name, channels)
            for name, like, channels in (
                ("resnet18", "ssl4eo-resnet18-moco", 13),
                ("resnet50", "imagenet-resnet50-v1", 13),
                ("resnet152", "satlas-resnet152-si-ms", 9),
            )
        ),
    )


CASES = _cases()


def write_file(case: Case, folder: Path, size: int = 224) -> tuple[Path, Original]:
    """The original model of a case with random weights, and its file."""
    theirs = original(case.grammar, case.wrapper, case.architecture, case.channels, size=size)
    randomise(theirs.module, seed=0)
    content = wrapped(theirs.module.state_dict(), case.wrapper)
    path = folder / f"{case.architecture}.{case.suffix}"
    if case.suffix == "safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path, theirs


def measure(case: Case, sizes: Sequence[int]) -> list[Result]:
    """Convert a case's file and compare both models at each size."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        path, theirs = write_file(case, Path(folder), sizes[0])
        manifest, model = converted_model(path, case.like)
        layout = case.grammar.replace("torchvision-resnet", "timm-resnet")
        if case.wrapper != "plain":
            layout += f" in {case.wrapper}"
        if (manifest["layout"], manifest["architecture"]) != (layout, case.architecture):
            raise AssertionError(f"{case} was taken for {manifest['layout']}")
    for size in sizes:
        image = random_image(case.channels, size)
        high, low = (our_maps(model, image.astype(t)) for t in (np.float32, ml_dtypes.bfloat16))
        features = compare_maps(high, torch_maps(theirs, image))
        gradient = compare_gradients(model, theirs, image)
        half = max(
            np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in zip(high, low, strict=True)
        )
        worst = max(row.relative for row in features)
        results.append(Result(case, size, worst, gradient.relative, float(half)))
    return results


def table(results: Sequence[Result]) -> str:
    """The results as Markdown."""
    lines = [
        "| published set | grammar | wrapper | pixels | maps | input gradient | bfloat16 |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r.case.like} | {r.case.grammar} | {r.case.wrapper} | {r.size} | {r.features:.1e} | "
        f"{r.gradient:.1e} | {r.bfloat16:.1e}{'' if r.passes else ' **fails**'} |"
        for r in results
    ]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> list[Result]:
    """What an earlier call measured."""
    if not path.exists():
        return []
    cases = {(case.like, case.grammar, case.wrapper): case for case in CASES}
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file) if tuple(row[:3]) in cases]
    return [Result(cases[tuple(row[:3])], int(row[3]), *map(float, row[4:])) for row in rows]


def _append(path: Path, results: Sequence[Result]) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file).writerows(
            (
                *(r.case.like, r.case.grammar, r.case.wrapper),
                r.size,
                r.features,
                r.gradient,
                r.bfloat16,
            )
            for r in results
        )


def _write(path: Path, results: Sequence[Result]) -> None:
    measured = f"{len({result.case for result in results})} of {len(CASES)} cases are measured."
    with replacing(path) as temporary:
        temporary.write_text(f"{_INTRODUCTION}\n{measured}\n\n{table(results)}")


def main() -> None:
    """Measure every case, or those whose name holds `--only`, and write the table.

    Results are kept case by case in OUT.csv, so that a call that was broken off can be repeated.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the Markdown file to write")
    parser.add_argument("--only", default="", help="cases whose published set has this in its name")
    options = parser.parse_args()
    kept = options.out.with_suffix(".csv")
    done = {result.case for result in _read(kept)}
    for case in CASES:
        if options.only in case.like and case not in done:
            began = time.monotonic()
            results = measure(case, case.sizes)
            _append(kept, results)
            print(table(results).partition(":|\n")[2], end="")
            print(f"{time.monotonic() - began:.0f} s", flush=True)
            _write(options.out, _read(kept))
    results = _read(kept)
    failed = sum(not result.passes for result in results)
    if failed:
        raise SystemExit(f"{failed} of {len(results)} rows are not within the bars")


if __name__ == "__main__":
    main()
