"""Crop-type mapping from Sentinel-2 with pretrained backbones, in JAX."""

__version__ = "0.1.0"
