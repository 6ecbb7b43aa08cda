"""Built records as `jaxcrop.data` reads them, made up in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from jaxcrop.data.bands import SENTINEL2_BANDS

CODES = {
    "0": {"name": "Background", "class": 0},
    "1": {"name": "Corn", "class": 1},
    "5": {"name": "Soybeans", "class": 2},
    "24": {"name": "Winter Wheat", "class": 4},
    "36": {"name": "Alfalfa", "class": 5},
    "176": {"name": "Grassland/Pasture", "class": 5},
}
CLASS_OF_CODE = np.zeros(256, np.uint8)
for _code, _row in CODES.items():
    CLASS_OF_CODE[int(_code)] = _row["class"]


def record(
    chip_id: str,
    code: np.ndarray,
    *,
    seed: int = 0,
    crs: str = "EPSG:3857",
    west: float = 0.0,
    north: float = 0.0,
    pixel: tuple[float, float] = (10.0, 10.0),
    dates: Sequence[str] = ("2023-07-10",),
    **others,
) -> dict:
    """A chip of raw codes (h, w), its image random, as TFDS gives it: texts are bytes."""
    rng = np.random.default_rng(seed)
    times = len(dates)
    return {
        "chip_id": chip_id.encode(),
        "image": rng.integers(1, 4000, (times, *code.shape, 13)).astype(np.uint16),
        "label": CLASS_OF_CODE[code],
        "code": code.astype(np.uint8),
        "dates": [day.encode() for day in dates],
        "crs": crs.encode(),
        "transform": np.array([pixel[0], 0, west, 0, -pixel[1], north]),
        "offset": np.zeros(times, np.int32),
        "offset_source": [b"year"] * times,
        "cloudy": np.zeros(times, np.float32),
        "nodata": np.zeros(times, np.float32),
        **others,
    }


def records(
    folder: Path, splits: Mapping[str, Sequence[dict]], *, synthetic: bool = False, **metadata
) -> SimpleNamespace:
    """What `jaxcrop.data.reading.find_records` would give for these records."""
    return SimpleNamespace(
        folder=folder,
        name="cdl",
        variant="standard",
        version="2.0.0",
        bands=SENTINEL2_BANDS,
        synthetic=synthetic,
        sizes={split: len(rows) for split, rows in splits.items()},
        metadata={
            "codes": CODES,
            "outside": 255,
            "harmonisation": "standard",
            "radiometry": "harmonised",
            "product": "L1C",
            "season": ["05-01", "09-30"],
            "year": 2023,
            "labels": "raw",
            **metadata,
        },
        raw=splits.__getitem__,
    )
