import pytest
import rasterio
from rasterio.transform import Affine


@pytest.fixture
def write_scene(tmp_path):
    """Function that writes a GeoTIFF from band x height x width pixels and returns its path."""

    def write(pixels, bands=("B04", "B08"), name="scene.tif", **profile):
        count, height, width = pixels.shape
        profile = {
            "crs": "EPSG:32633",
            "transform": Affine(10, 0, 612_340, 0, -10, 5_204_560),
            **profile,
        }
        path = tmp_path / name
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=pixels.dtype,
            **{key: value for key, value in profile.items() if value is not None},
        ) as sink:
            if bands is not None:
                sink.descriptions = bands  # before the pixels, so that the file starts with them
            sink.write(pixels)
        return path

    return write
