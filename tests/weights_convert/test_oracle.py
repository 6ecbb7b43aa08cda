"""Our models against the original libraries', through our conversion of their files.

One layout of each kind of model and family, on small images; the full matrix is
`experiments/parity/matrix.py`.
"""

import pytest

torch = pytest.importorskip("torch")

from matrix import CASES, measure  # noqa: E402

# The published set, its grammar and wrapper, and an image of few windows or patches.
CHOSEN = {
    ("ssl4eo-l-resnet18-tm-toa-moco", "timm-resnet", "plain"): 96,
    ("ssl4eo-resnet50-dino", "timm-resnet", "dino"): 64,
    ("satlas-resnet50-si-ms", "torchvision-resnet", "satlas"): 64,
    ("ssl4eo-vit-s16-mae", "timm-vit", "mae"): 80,
    ("imagenet-vit-b16-augreg", "timm-vit", "plain"): 48,
    ("ssl4eo-vit-s14-softcon", "timm-vit", "plain"): 70,
    ("satlas-swin-v2-t-si-ms", "torchvision-swin", "satlas"): 64,
    ("satlas-swin-v2-b-si-ms-torchgeo", "torchvision-swin", "plain"): 40,
    ("imagenet-swin-v2-t-microsoft", "timm-swin", "plain"): 256,
}


@pytest.mark.parametrize("key", CHOSEN, ids="-".join)
def test_maps_and_gradients_equal_the_originals(key):
    (case,) = (case for case in CASES if (case.like, case.grammar, case.wrapper) == key)
    (result,) = measure(case, [CHOSEN[key]])
    assert result.passes, result
