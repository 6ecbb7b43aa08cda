"""Bytes of records beside those that the library of the format reads."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from io import FileIO
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from jaxcrop.data.stored import StoredRecords
from jaxcrop.errors import InputError

SIZES = (1, 65_000, 65_511, 65_512, 65_513, 131_072, 3_000_000, 40_000_000, 7, 200_000)
"""Below, at and over the borders of blocks, and more blocks than one call of the system takes."""


def write(path, options="group_size:1,uncompressed", sizes=SIZES):
    writer = ArrayRecordWriter(str(path), options)
    rng = np.random.default_rng(0)
    for size in sizes:
        writer.write(rng.bytes(size))
    writer.close()
    return path


def stored(path, count=10, skip=0, take=-1) -> StoredRecords:
    part = SimpleNamespace(filename=str(path), skip=skip, take=take, examples_in_shard=count)
    return StoredRecords.of(
        SimpleNamespace(splits={"train": SimpleNamespace(file_instructions=[part])}), "train"
    )


@pytest.mark.parametrize("first", [0, 1, 65_400, 65_430])
def test_every_record_is_what_the_library_reads(tmp_path, first):
    """The first record moves the others to other places in their blocks."""
    sizes = (*([first] if first else []), *SIZES)
    path = write(tmp_path / "records", sizes=sizes)
    found = stored(path, len(sizes))
    assert [len(record) for record in found] == list(sizes)
    reader = ArrayRecordReader(str(path))
    for record, expected in zip(found, reader.read_all(), strict=True):
        assert record.tobytes() == expected


@pytest.mark.parametrize("part", ["train", "train[:3]", "train[2:7]", "train[50%:]"])
def test_a_part_of_a_split_is_what_tfds_says(synthetic_records, part):
    builder = tfds.builder_from_directory(synthetic_records.folder)
    expected = [record["chip_id"] for record in builder.as_data_source(part)]
    assert [record["chip_id"] for record in synthetic_records.raw(part)] == expected


def test_threads_read_more_files_than_are_kept_open(tmp_path, monkeypatch):
    """Whatever one thread opens or lets go, another's file stays open while it reads."""
    monkeypatch.setattr("jaxcrop.data.stored._file", lru_cache(1)(FileIO))
    files = [write(tmp_path / str(k), sizes=[100_000 + k]) for k in range(4)]
    records = [stored(path, 1) for path in files]
    expected = [record[0].tobytes() for record in records]

    def read(number: int) -> bool:
        return records[number % 4][0].tobytes() == expected[number % 4]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(20_000)))


def test_damaged_and_strange_files_are_refused(tmp_path):
    path = write(tmp_path / "records")
    complete = stored(path)
    os.truncate(path, 1_000_000)
    with pytest.raises(InputError, match="records is damaged or was not written by"):
        stored(_moved(path))
    with pytest.raises(InputError, match="records is damaged"):
        complete[6]
    for options in ("group_size:1", "group_size:4,uncompressed"):
        with pytest.raises(InputError, match="was not written by"):
            stored(write(tmp_path / options.replace(":", "-"), options))
    with pytest.raises(InputError, match="damaged"):
        stored(write(tmp_path / "fewer", sizes=SIZES[:3]))


def _moved(path):
    """The same file under a name of which nothing is remembered."""
    other = path.with_name("truncated-records")
    os.link(path, other)
    return other
