import hashlib
import json

import pytest

from jaxcrop.data.chip_lists import find_lists, read_list, write_lists
from jaxcrop.errors import InputError

PARTS = {"train": ("a", "b", "c"), "validation": ("d",), "test": ("e", "f")}


def test_lists_that_are_written_are_read_back(tmp_path):
    folder = tmp_path / "new" / "lists"
    write_lists(PARTS, folder)
    found = find_lists({"a"}, folder, "900")
    assert {name: read_list(path) for name, path in found.items()} == PARTS
    summary = json.loads((folder / "splits.json").read_text())
    for name, ids in PARTS.items():
        content = (folder / f"{name}.csv").read_bytes()
        assert content.decode().split() == list(ids)
        digest = hashlib.sha256(content).hexdigest()
        assert summary[f"{name}.csv"] == {"chips": len(ids), "sha256": digest}


def test_lists_are_of_the_set_that_tests_most_chips(tmp_path):
    for name, ids in (("cdl_2023", "abc"), ("nccm_2019", "cdefg")):
        for part in ("100", "test"):
            (tmp_path / f"sentinel2_{name}_subsampled_{part}.csv").write_text("\n".join(ids))
    for known, name in (("abz", "cdl_2023"), ("def", "nccm_2019")):
        assert find_lists(set(known), tmp_path, "100") == {
            "train": tmp_path / f"sentinel2_{name}_subsampled_100.csv",
            "test": tmp_path / f"sentinel2_{name}_subsampled_test.csv",
        }


def test_folders_and_files_that_are_no_lists_are_named(tmp_path):
    (tmp_path / "file").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="file cannot be read as text"):
        read_list(tmp_path / "file")
    with pytest.raises(InputError, match="choose another folder"):
        write_lists(PARTS, tmp_path / "file")
    with pytest.raises(InputError, match="file is no folder"):
        find_lists({"a"}, tmp_path / "file", "100")
    with pytest.raises(InputError, match=r"holds neither train.csv .*_100.csv"):
        find_lists({"a"}, tmp_path, "100")
