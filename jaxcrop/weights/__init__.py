"""Pretrained weights: the catalogue of what is published, the cache, and loading into a module."""

from jaxcrop.weights.catalogue import (
    BAND_INPUT,
    CATALOGUE,
    DEFAULT,
    PublishedWeights,
    band_input,
    published,
)
from jaxcrop.weights.converted import load_converted, load_weights, part_of, read_manifest
from jaxcrop.weights.download import cache_dir, fetch, find
from jaxcrop.weights.stem import adapt_stem

__all__ = [
    "BAND_INPUT",
    "CATALOGUE",
    "DEFAULT",
    "PublishedWeights",
    "adapt_stem",
    "band_input",
    "cache_dir",
    "fetch",
    "find",
    "load_converted",
    "load_weights",
    "part_of",
    "published",
    "read_manifest",
]
