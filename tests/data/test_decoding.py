import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxcrop.data.build import build
from jaxcrop.data.decoding import Decoder
from jaxcrop.data.reading import find_records
from jaxcrop.data.synthetic import write_region


@pytest.mark.parametrize(("region", "dataset"), [("europe", "eurocrops"), ("africa", "sact")])
def test_records_are_what_tfds_decodes(tmp_path, region, dataset):
    """Bytes, compressed codes of eight bytes, texts and lists of texts."""
    write_region(tmp_path / "source", region, 3, seed=0)
    build(dataset, tmp_path / "source", tmp_path)
    records = find_records(tmp_path, dataset)
    for split in records.sizes:
        (expected,) = tfds.builder_from_directory(records.folder).as_data_source(split)
        (found,) = records.raw(split)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
            if isinstance(found[name], np.ndarray):
                assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)


def test_series_lists_and_nothing():
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Tensor(
                shape=(None, 3, 2), dtype=np.uint16, encoding=tfds.features.Encoding.BYTES
            ),
            "code": tfds.features.Tensor(
                shape=(300,), dtype=np.int64, encoding=tfds.features.Encoding.ZLIB
            ),
            "dates": tfds.features.Sequence(tfds.features.Text()),
            "chip_id": tfds.features.Text(),
        }
    )
    for days in (["2020-01-01", "2020-02-01"], []):
        example = {
            "image": np.arange(6 * len(days), dtype=np.uint16).reshape(-1, 3, 2),
            "code": np.arange(300),
            "dates": days,
            "chip_id": "Chip",
        }
        record = features.serialize_example(example)
        found = Decoder.of(features)(record)
        for name in ("image", "code"):
            np.testing.assert_array_equal(found[name], example[name])
        assert found["dates"] == [day.encode() for day in days]
        assert found["chip_id"] == b"Chip"
