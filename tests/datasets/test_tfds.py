"""The builders as any TFDS dataset: its own test case, its command line, `tfds.load`."""

import os
import subprocess
import sys
import unittest

import numpy as np
import pytest

from jaxcrop.data.build import builder_class, dataset_names


@pytest.fixture(autouse=True)
def _tensorflow():
    """Imported by the process that needs it, not by all that collect tests."""
    pytest.importorskip("tensorflow", reason="needs the tensorflow extra")


@pytest.mark.parametrize("dataset", dataset_names())
def test_tfds_test_case(dataset):
    """Registration, tags, dummy data, records, and reading by tf.data."""
    import tensorflow_datasets as tfds

    class Case(tfds.testing.DatasetBuilderTestCase):
        DATASET_CLASS = builder_class(dataset)
        BUILDER_CONFIG_NAMES_TO_TEST = ("paper-raw",)
        SPLITS = dict.fromkeys(("train", "validation", "test"), 1)

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert result.testsRun > 5
    assert not result.errors + result.failures, result.errors + result.failures


def test_tfds_command_line_and_load(tmp_path):
    """`tfds build` writes TFRecords, which `tfds.load` and our own reading give alike."""
    import tensorflow_datasets as tfds

    from jaxcrop.data.reading import find_records

    folder = builder_class("eurocrops").code_path.parent
    command = [
        *(sys.executable, "-m", "tensorflow_datasets.scripts.cli.main", "build", "eurocrops"),
        *("--config", "silage", "--manual_dir", str(folder / "dummy_data")),
        *("--data_dir", str(tmp_path)),
        *("--imports", "jaxcrop_datasets.eurocrops.eurocrops_dataset_builder"),
    ]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stderr
    splits = tfds.load("eurocrops/silage", data_dir=tmp_path)
    assert find_records(tmp_path, "eurocrops", "silage").sizes == dict.fromkeys(splits, 1)
    for split in splits.values():
        (record,) = split.as_numpy_iterator()
        assert record["image"].shape == (1, 256, 256, 13)
        expected = {3301010101: 4, 3301010600: 1, 3301090400: 1, 3302000000: 5}
        for code, crop in expected.items():
            assert (np.unique(record["label"][record["code"] == code]) == crop).all()
        assert (record["label"] > 0).mean() > 0.95
