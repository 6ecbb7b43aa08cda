"""TFDS builders of the crop-type datasets."""
