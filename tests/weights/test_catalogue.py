import csv
import re
from pathlib import Path

import pytest

from jaxcrop.data.bands import SENTINEL2_BANDS
from jaxcrop.errors import InputError
from jaxcrop.weights import CATALOGUE, INPUTS, band_input, default_weights, published
from jaxcrop.weights import catalogue as module

ARCHITECTURES = {
    "resnet18", "resnet50", "resnet152", "vit-s16", "vit-b16", "vit-l16", "vit-h14", "vit-s14",
    "vit-b14", "swin-v2-t", "swin-v2-b",
}  # fmt: skip
MOST_CHANNELS = {"ssl4eo": 13, "ssl4eo-l": 11, "satlas": 9, "imagenet": 3}


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)
def test_entries_are_coherent(entry):
    assert entry.name.startswith(f"{entry.family}-{entry.architecture}-")
    assert entry.architecture in ARCHITECTURES
    assert entry.url.startswith("https://")
    assert entry.file_name.endswith((".pth", ".safetensors"))
    # The publishers put the hash into the name: an entry has one exactly where the name does.
    in_name = re.search(r"-([0-9a-f]{8})\.pth$", entry.file_name)
    assert entry.sha256 == (in_name[1] if in_name else "")
    if "torchgeo" in entry.url:
        assert re.search("/resolve/[0-9a-f]{40}/", entry.url)
        assert entry.sha256
    assert entry.input_size == {"vit-s14": 224, "vit-b14": 224}.get(
        entry.architecture, entry.input_size
    )
    assert entry.input_size in (224, 256, 512)
    assert entry.images == (8 if "-mi-" in entry.name else 1)
    assert entry.method in entry.name or entry.method == "supervised"


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)
def test_the_input_is_that_of_the_family(entry):
    bands = entry.band_input.bands
    assert entry.in_channels <= MOST_CHANNELS[entry.family]
    if entry.family == "imagenet":
        assert (entry.in_channels, bands) == (3, SENTINEL2_BANDS)
    else:
        assert entry.in_channels == len(bands)
    if "-rgb" in entry.name:
        assert bands == ("B04", "B03", "B02")
    if entry.family == "ssl4eo-l":
        sensor = re.search("-(tm|etm|oli-tirs|oli)-", entry.name)[1].replace("-", "_").upper()
        assert {band.partition(".")[0] for band in bands} == {sensor}
        assert ("SR_" in bands[0]) == ("-sr-" in entry.name)
    else:
        assert set(bands) <= set(SENTINEL2_BANDS)


def test_names_and_files_are_unique():
    path = Path(module.__file__).with_name("catalogue.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(CATALOGUE) == len({row["url"] for row in rows})
    fragments = [row["sha256"] for row in rows if row["sha256"]]
    assert len(fragments) == len(set(fragments))
    assert {row["input"] for row in rows} == set(INPUTS)


@pytest.mark.parametrize(
    ("family", "count", "architectures"),
    [
        # weights_spec 2.2: 19 files; 2.3: the seven full checkpoints that have a stable address
        ("ssl4eo", 26, "resnet18 resnet50 vit-s16 vit-b16 vit-l16 vit-h14 vit-s14 vit-b14"),
        ("ssl4eo-l", 30, "resnet18 resnet50 vit-s16"),  # five sensors and products, two methods
        ("satlas", 32, "resnet50 resnet152 swin-v2-t swin-v2-b"),  # two hosts
        ("imagenet", 15, "resnet18 resnet50 resnet152 vit-s16 vit-b16 vit-l16 swin-v2-t swin-v2-b"),
    ],
)
def test_every_published_set_is_listed(family, count, architectures):
    entries = [entry for entry in CATALOGUE.values() if entry.family == family]
    assert len(entries) == count
    assert {entry.architecture for entry in entries} == set(architectures.split())


def test_torchvisions_files_are_those_of_its_own_tables():
    import oracles

    models = oracles.torchvision().models
    theirs = {
        weights.url
        for architecture in (
            "ResNet18", "ResNet50", "ResNet152", "ViT_B_16", "ViT_L_16", "Swin_V2_T", "Swin_V2_B",
        )
        for weights in getattr(models, f"{architecture}_Weights")
        if "SWAG" not in weights.name
    }  # fmt: skip
    ours = {entry.url for entry in CATALOGUE.values() if "download.pytorch.org" in entry.url}
    assert ours == theirs


def test_timms_files_are_those_of_its_own_tables():
    import oracles

    timm = oracles.timm()
    entries = [entry for entry in CATALOGUE.values() if "/timm/" in entry.url]
    assert len(entries) == 6
    for entry in entries:
        repository = entry.url.split("/")[4]
        theirs = timm.get_pretrained_cfg(repository)
        assert theirs.hf_hub_id == f"timm/{repository}"
        assert theirs.input_size == (3, entry.input_size, entry.input_size)
        assert theirs.license == entry.licence.lower()


@pytest.mark.parametrize(
    ("family", "architecture", "name"),
    [
        ("ssl4eo", "resnet50", "ssl4eo-resnet50-moco"),
        ("ssl4eo", "vit-s16", "ssl4eo-vit-s16-moco"),
        ("ssl4eo", "vit-l16", "ssl4eo-vit-l16-mae"),
        ("ssl4eo", "vit-b14", "ssl4eo-vit-b14-softcon"),
        ("satlas", "resnet50", "satlas-resnet50-si-ms"),
        ("satlas", "swin-v2-b", "satlas-swin-v2-b-si-ms"),
        ("imagenet", "resnet50", "imagenet-resnet50-v1"),
        ("imagenet", "vit-s16", "imagenet-vit-s16-augreg"),
    ],
)
def test_what_a_family_stands_for(family, architecture, name):
    assert default_weights(family, architecture) == published(name)


def test_every_default_takes_the_whole_input_of_its_family():
    for entry in CATALOGUE.values():
        if entry.family in module.FAMILY_INPUTS and "14" not in entry.architecture:
            default = default_weights(entry.family, entry.architecture)
            assert default.band_input == band_input(entry.family)
            assert "torchgeo" not in default.name


def test_what_is_not_published_is_named():
    with pytest.raises(InputError, match=r"satlas has no weights of vit-s16: choose resnet50, res"):
        default_weights("satlas", "vit-s16")
    with pytest.raises(InputError, match=r"no weights of seco .* choose ssl4eo, ssl4eo-l, satlas"):
        default_weights("seco", "resnet50")
    with pytest.raises(InputError, match=r"called ssl4eo-resnet50-mocov2: .* ssl4eo-resnet50-moco"):
        published("ssl4eo-resnet50-mocov2")


def test_band_input_keeps_each_band_at_its_scale():
    reduced = band_input("satlas", ("B08", "B04"))
    assert (reduced.bands, reduced.divisor, reduced.clip) == (("B08", "B04"), (8160, 3558), True)
    assert reduced.offset == (0, 0)
    with pytest.raises(InputError, match="satlas has no scale for band B10"):
        band_input("satlas", ("B04", "B10"))
    with pytest.raises(InputError, match="ssl4eo-l takes no Sentinel-2 bands"):
        band_input("ssl4eo-l")


def test_the_scales_are_those_of_the_publishers():
    """Spot checks by hand against weights_spec 2.1 and 3.1, at a DN of 3000."""
    softcon = INPUTS["softcon"]
    cirrus = softcon.bands.index("B10")
    assert (softcon.offset[cirrus], softcon.divisor[cirrus]) == (22.0, 47.5)
    assert (softcon.offset[-1], softcon.divisor[0]) == (1537.4, 791.0)
    assert not softcon.clip
    satlas = INPUTS["satlas"]
    assert dict(zip(satlas.bands, satlas.divisor, strict=True)) == {
        **dict.fromkeys(("B04", "B03", "B02"), 3558.0),
        **dict.fromkeys(("B05", "B06", "B07", "B08", "B11", "B12"), 8160.0),
    }
    assert len(INPUTS["oli-tirs-toa"].bands) == 11
    assert len(INPUTS["etm-toa"].bands) == 9
    assert set(INPUTS["tm-toa"].divisor) == {255.0}
