"""Small Sentinel-2 products in the layouts of ESA and of band files, for the tests."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from jaxcrop.data.bands import SENTINEL2_BANDS

METRES = dict.fromkeys(SENTINEL2_BANDS, 20)
METRES |= dict.fromkeys(("B02", "B03", "B04", "B08"), 10) | dict.fromkeys(("B01", "B09", "B10"), 60)
CRS = "EPSG:32634"
WEST, NORTH = 300_000.0, 6_300_000.0

_XML = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-{level}_User_Product
    xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd">
  <n1:General_Info>
    <Product_Info><PROCESSING_BASELINE>05.10</PROCESSING_BASELINE></Product_Info>
    <Product_Image_Characteristics>{offsets}</Product_Image_Characteristics>
  </n1:General_Info>
  <n1:Quality_Indicators_Info>
    <Cloud_Coverage_Assessment>12.5</Cloud_Coverage_Assessment>
  </n1:Quality_Indicators_Info>
</n1:Level-{level}_User_Product>
"""


def bands_of(level: str) -> tuple[str, ...]:
    return tuple(band for band in SENTINEL2_BANDS if level == "1C" or band != "B10")


def draw(level: str, side: int = 120, seed: int = 0) -> dict[str, np.ndarray]:
    """Digital numbers of every band at its own resolution, over `side` pixels of 10 m."""
    rng = np.random.default_rng(seed)
    return {
        band: rng.integers(300, 4000, (side * 10 // METRES[band],) * 2, np.uint16)
        for band in bands_of(level)
    }


def write_band(path: Path, pixels: np.ndarray, metres: float, at=(WEST, NORTH), crs=CRS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    jp2 = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    with rasterio.open(
        path, "w", **(jp2 if path.suffix == ".jp2" else {"driver": "GTiff"}), count=1,
        height=pixels.shape[0], width=pixels.shape[1], dtype=pixels.dtype, crs=crs,
        transform=from_origin(*at, metres, metres),
    ) as file:  # fmt: skip
        file.write(pixels, 1)


def write_safe(
    folder: Path,
    bands: Mapping[str, np.ndarray],
    *,
    level: str = "1C",
    day: str = "20230719",
    offsets: tuple[int, ...] = (-1000,) * 13,
    at=(WEST, NORTH),
) -> Path:
    """Write a product S2A_MSIL….SAFE with a granule, and return its folder."""
    safe = folder / f"S2A_MSIL{level}_{day}T084601_N0510_R107_T34HCH_{day}T104801.SAFE"
    images = safe / "GRANULE" / f"L{level}_T34HCH_A042171_{day}T084601" / "IMG_DATA"
    for band, pixels in bands.items():
        metres = METRES[band]
        name = f"T34HCH_{day}T084601_{band}"
        file = f"{name}.jp2" if level == "1C" else f"R{metres}m/{name}_{metres}m.jp2"
        write_band(images / file, pixels, metres, at)
    kind = "RADIO" if level == "1C" else "BOA"
    listed = "".join(
        f'<{kind}_ADD_OFFSET band_id="{i}">{o}</{kind}_ADD_OFFSET>' for i, o in enumerate(offsets)
    )
    (safe / f"MTD_MSIL{level}.xml").write_text(_XML.format(level=level, offsets=listed))
    return safe


def write_plain(
    folder: Path, bands: Mapping[str, np.ndarray], template: str = "{band}.tif", at=(WEST, NORTH)
) -> Path:
    """Write a folder of band GeoTIFFs."""
    for band, pixels in bands.items():
        name = template.format(band=band, short=band.replace("B0", "B"), metres=METRES[band])
        write_band(folder / name, pixels, METRES[band], at)
    return folder
