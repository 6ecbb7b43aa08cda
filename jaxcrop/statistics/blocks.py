"""Blocks of the ground: chips in one block are near each other, and so not independent."""

import numpy as np
from jaxtyping import Float, Int

from jaxcrop.errors import InputError

EARTH_KM = 6371.0
"""Mean radius of the Earth."""

BLOCK_KM = 20.0
"""Width of the blocks of neighbouring chips, unless another is asked for."""


def block_ids(
    lon: Float[np.ndarray, " n"], lat: Float[np.ndarray, " n"], km: float = BLOCK_KM
) -> Int[np.ndarray, " n"]:
    """The block of each place, numbered from 0: cells of a grid on the sphere, `km` wide and high.

    `lon` and `lat` are degrees. Rows run along parallels; the columns of a row are `km` wide at its
    middle, and begin anew at the meridian of 180°. Raises InputError for a width that is not above
    0 and for places that are not numbers.
    """
    lon, lat = np.asarray(lon, float), np.asarray(lat, float)
    if not km > 0:
        raise InputError(f"blocks of {km} km cannot be: give a length above 0")
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise InputError("blocks need a longitude and a latitude of every chip: some are not given")
    row = np.floor(np.radians(lat) * EARTH_KM / km)
    middle = np.clip((row + 0.5) * km / EARTH_KM, -np.pi / 2, np.pi / 2)
    column = np.floor(np.radians(lon) * EARTH_KM * np.cos(middle) / km)
    return np.unique(row + 1j * column, return_inverse=True)[1]
