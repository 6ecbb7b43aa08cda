import re

import pytest

from jaxcrop.data.bands import SENTINEL2_BANDS
from jaxcrop.errors import InputError
from jaxcrop.weights import BAND_INPUT, CATALOGUE, DEFAULT, band_input, published


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)
def test_entries_are_coherent(entry):
    assert re.fullmatch("[0-9a-f]{8}", entry.sha256)
    assert entry.file_name.endswith(f"-{entry.sha256}.pth")
    assert entry.url.startswith("https://")
    assert set(entry.band_input.bands) <= set(SENTINEL2_BANDS)
    if entry.family != "imagenet":
        assert len(entry.band_input.bands) == entry.in_channels
    if "torchgeo" in entry.url:
        assert re.search("/resolve/[0-9a-f]{40}/", entry.url)


def test_every_family_has_a_default_that_takes_its_whole_input():
    assert set(DEFAULT) == set(BAND_INPUT)
    for family, name in DEFAULT.items():
        assert published(name).family == family
        assert published(name).band_input == BAND_INPUT[family]


def test_band_input_keeps_each_band_at_its_scale():
    reduced = band_input("satlas", ("B08", "B04"))
    assert (reduced.bands, reduced.divisor, reduced.clip) == (("B08", "B04"), (8160, 3558), True)
    with pytest.raises(InputError, match="satlas has no scale for band B10"):
        band_input("satlas", ("B04", "B10"))
