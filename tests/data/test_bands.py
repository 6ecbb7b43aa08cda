import pytest

from jaxcrop.data.bands import SENTINEL2_BANDS, BandInput
from jaxcrop.errors import InputError


def test_indices_follow_the_names():
    satlas = ("B04", "B03", "B02", "B05", "B06", "B07", "B08", "B11", "B12")
    band_input = BandInput.scaled(satlas, 1.0, clip=True)
    # datasets_spec 5: indices into the published file order, which has B8A last
    published = [*(f"B{i:02}" for i in range(1, 13)), "B8A"]
    assert band_input.indices(published, "chip.tif") == (3, 2, 1, 4, 5, 6, 7, 10, 11)
    everything = BandInput.scaled(SENTINEL2_BANDS, 1.0)
    assert everything.indices(published, "chip.tif") == (0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 9, 10, 11)


def test_bands_of_one_scale():
    two = BandInput(("B04", "B08"), (0.0, 0.0), (10_000.0, 10_000.0), clip=False)
    assert BandInput.scaled(["B04", "B08"]) == two
    one = BandInput(("B02",), (0.0,), (255.0,), clip=True)
    assert BandInput.scaled(("B02",), 255.0, clip=True) == one


def test_a_missing_band_is_named():
    two = BandInput(("B02", "B10"), (0.0, 0.0), (1.0, 1.0), clip=False)
    with pytest.raises(InputError, match=r"scene\.tif lacks band B10 .*it has B02, B03"):
        two.indices(("B02", "B03"), "scene.tif")


@pytest.mark.parametrize(("offset", "divisor"), [((0.0,), (1.0, 1.0)), ((0.0, 0.0), (1.0,))])
def test_every_band_needs_its_offset_and_divisor(offset, divisor):
    with pytest.raises(ValueError, match=r"2 bands but \d offsets and \d divisors"):
        BandInput(("B02", "B03"), offset, divisor, clip=False)
