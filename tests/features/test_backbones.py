"""What a frozen backbone is known by."""

from made_up_features import INPUT, segmenter

from jaxcrop.data.bands import BandInput
from jaxcrop.features.backbones import FrozenBackbone


def test_the_digest_is_of_weights_statistics_bands_and_scale():
    def digest(seed=0, architecture="resnet18", band_input=INPUT):
        return FrozenBackbone.of(segmenter(architecture, seed), "resnet18", band_input).digest

    model = segmenter("resnet18")
    statistics = model.backbone.bn1.mean
    statistics.set_value(statistics[...] + 1e-3)
    found = [
        digest(),
        digest(seed=1),
        digest(band_input=BandInput(INPUT.bands, INPUT.offset, (1.0,) * 3, clip=False)),
        digest(band_input=BandInput(INPUT.bands[::-1], INPUT.offset, INPUT.divisor, clip=False)),
        FrozenBackbone.of(model, "resnet18", INPUT).digest,
    ]
    assert len(set(found)) == len(found)
    assert digest() == found[0]
