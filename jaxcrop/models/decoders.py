"""Every decoder by name.

A decoder is made by `Decoder(channels, num_classes, rngs=rngs)` and called on feature maps of these
channels, finest first; it returns logits at a size of its own. `Decoder.wants_pyramid` says whether
each map must have half the size of the one before.
"""

from flax import nnx

from jaxcrop.models.fpn import FPN
from jaxcrop.models.linear import LinearHead
from jaxcrop.models.unet import UNet
from jaxcrop.models.upernet import UPerNet

DECODERS: dict[str, type[nnx.Module]] = {
    "unet": UNet,
    "fpn": FPN,
    "upernet": UPerNet,
    "linear": LinearHead,
}
