"""Cropland Data Layer, United States, 2023."""
