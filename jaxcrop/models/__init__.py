"""Backbones, decoders, and the segmenter that joins them (Flax NNX, NHWC)."""
