"""A world map: outlines of land in the Equal Earth projection."""

import json
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float

_A = (1.340264, -0.081106, 0.000893, 0.003796)
_NORTH, _SOUTH = 84.0, -57.0


def equal_earth(
    lon: Float[np.ndarray, "*n"], lat: Float[np.ndarray, "*n"]
) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
    """The Equal Earth projection of degrees, to units of the Earth's radius.

    Savric, Patterson, Jenny 2018, doi 10.1080/13658816.2018.1504949, equations 9 and 10.
    """
    lon, lat = np.radians(lon), np.radians(lat)
    theta = np.arcsin(np.sqrt(3) / 2 * np.sin(lat))
    powers = (1, theta**2, theta**6, theta**8)
    y = theta * sum(a * power for a, power in zip(_A, powers, strict=True))
    slope = sum(
        (1, 3, 7, 9)[k] * a * power for k, (a, power) in enumerate(zip(_A, powers, strict=True))
    )
    x = 2 * np.sqrt(3) * lon * np.cos(theta) / (3 * slope)
    return x, y


_EDGE = float(equal_earth(np.array(180.0), np.array(0.0))[0])
_TOP, _BOTTOM = (float(equal_earth(np.array(0.0), np.array(lat))[1]) for lat in (_NORTH, _SOUTH))
SIZE = (1000.0, 1000.0 * (_TOP - _BOTTOM) / (2 * _EDGE))
"""Width and height of the map."""


def on_map(
    lon: Float[np.ndarray, "*n"], lat: Float[np.ndarray, "*n"]
) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
    """Degrees to places on a map of SIZE, from its upper left corner."""
    x, y = equal_earth(lon, lat)
    scale = SIZE[0] / (2 * _EDGE)
    return (x + _EDGE) * scale, (_TOP - y) * scale


@cache
def land() -> tuple[Float[np.ndarray, "n 2"], ...]:
    """The outlines of land on the map, from `land.json`."""
    text = files("jaxcrop.reports").joinpath("land.json").read_text()
    rings = [np.reshape(ring, (-1, 2)).astype(float) for ring in json.loads(text)]
    return tuple(np.stack(on_map(*ring.T), axis=1) for ring in rings)


def land_path() -> str:
    """The outlines as the `d` of an SVG path."""
    return "".join("M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in ring) + "Z" for ring in land())
