"""A backbone joined to a decoder: image in, logits out."""

from flax import nnx
from jaxtyping import Array, Float

from jaxcrop.models.resnet import resnet50
from jaxcrop.models.unet import UNet


class Segmenter(nnx.Module):
    """Semantic segmentation: `decoder(backbone(image))`, logits at the size of the image."""

    def __init__(self, backbone: nnx.Module, decoder: nnx.Module):
        self.backbone = backbone
        self.decoder = decoder

    def __call__(self, image: Float[Array, "b h w band"]) -> Float[Array, "b h w classes"]:
        return self.decoder(self.backbone(image))


def resnet50_unet(in_channels: int, num_classes: int, *, rngs: nnx.Rngs) -> Segmenter:
    """The paper's segmenter: ResNet-50 and U-Net."""
    backbone = resnet50(in_channels, rngs=rngs)
    return Segmenter(backbone, UNet(backbone.channels, num_classes, rngs=rngs))


def abstract_resnet50_unet(in_channels: int, num_classes: int) -> Segmenter:
    """The same model without values: names, shapes and types."""
    return nnx.eval_shape(lambda: resnet50_unet(in_channels, num_classes, rngs=nnx.Rngs(0)))
