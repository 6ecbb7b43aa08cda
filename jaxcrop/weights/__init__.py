"""Pretrained weights: the catalogue of what is published, the cache, and loading into a module."""

from jaxcrop.weights.catalogue import (
    CATALOGUE,
    INPUTS,
    PublishedWeights,
    band_input,
    default_weights,
    published,
)
from jaxcrop.weights.converted import load_converted, load_weights, read_manifest
from jaxcrop.weights.download import cache_dir, fetch, find, state
from jaxcrop.weights.stem import adapt_stem

__all__ = [
    "CATALOGUE",
    "INPUTS",
    "PublishedWeights",
    "adapt_stem",
    "band_input",
    "cache_dir",
    "default_weights",
    "fetch",
    "find",
    "load_converted",
    "load_weights",
    "published",
    "read_manifest",
    "state",
]
