"""The records beside what torchgeo's own dataset classes read from the same files."""

import numpy as np
import pytest
import rasterio

from jaxcrop.data.bands import SENTINEL2_BANDS
from jaxcrop.data.build import build, builder_class
from jaxcrop.data.reading import find_records
from jaxcrop.data.synthetic import write_region
from weights_convert.originals import import_torchvision


def test_masks_and_bands_are_those_of_torchgeo(tmp_path):
    """Its Sentinel2 and CDL intersected give the same 13 bands and codes, pixel for pixel."""
    pytest.importorskip("torch")
    import_torchvision()
    datasets = pytest.importorskip("torchgeo.datasets")
    source = tmp_path / "source"
    write_region(source, "north-america", 4, seed=5)
    build("cdl", source, tmp_path / "records", variant="standard-raw")
    (labels,) = (source / "labels").iterdir()
    labels.rename(source / "labels" / "2023_30m_cdls.tif")
    records = find_records(tmp_path / "records", "cdl", "standard-raw")
    (record,) = records.raw("test")
    with rasterio.open(source / "chips" / f"{record['chip_id'].decode()}.tif") as file:
        by_band = dict(zip(file.descriptions, file.read(), strict=True))
        profile = {**file.profile, "count": 1}
        bounds = file.bounds
    day = record["dates"][0].decode().replace("-", "")
    for band, plane in by_band.items():
        path = tmp_path / "bands" / f"T15TVG_{day}T170000_{band}.tif"
        path.parent.mkdir(exist_ok=True)
        with rasterio.open(path, "w", **profile) as file:
            file.write(plane, 1)

    images = datasets.Sentinel2(str(tmp_path / "bands"), res=10, bands=SENTINEL2_BANDS)
    cdl = datasets.CDL(str(source / "labels"), years=[2023])
    both = images & cdl
    theirs = both[bounds.left : bounds.right, bounds.bottom : bounds.top]
    np.testing.assert_array_equal(
        record["image"][0], theirs["image"].numpy().transpose(1, 2, 0).astype(np.uint16)
    )
    codes = np.array(cdl.classes)[theirs["mask"].squeeze().numpy()]
    np.testing.assert_array_equal(record["code"], codes)
    table = builder_class("cdl").code_table("standard")
    crops = dict(zip(table.codes.tolist(), table.classes.tolist(), strict=True))
    np.testing.assert_array_equal(record["label"], np.vectorize(crops.get)(codes))
    assert len(np.unique(codes)) > 4
