"""Results of cells on disk."""

import dataclasses

import numpy as np
import pytest

from jaxcrop.errors import InputError
from jaxcrop.sweeps.cells import Cell, CellResult, read_result, read_results, write_result

CELL = Cell("id", "africa", "satlas", "resnet50", "unet", "id", 10, 0, 1e-3, settings={"steps": 2})


def result_of(cell: Cell, chips: int = 3) -> CellResult:
    rng = np.random.default_rng(0)
    return CellResult(
        cell=cell,
        chip_ids=tuple(f"chip{number}" for number in range(chips)),
        per_chip=rng.integers(0, 1000, (chips, 6, 6)),
        lon=rng.random(chips),
        lat=rng.random(chips),
        calibration=rng.random((15, 3)),
        examples=rng.integers(0, 6, (2, 8, 8)).astype(np.uint8),
        seconds=1.5,
        synthetic=True,
        about={"device": "cpu"},
    )


def test_the_key_is_of_what_decides_the_result():
    same = [{"part": "other"}, {"trap": "rice"}]
    other = [{"seed": 1}, {"budget": None}, {"learning_rate": 1e-4}, {"settings": {"steps": 3}}]
    assert {dataclasses.replace(CELL, **change).key for change in same} == {CELL.key}
    keys = {dataclasses.replace(CELL, **change).key for change in (*other, {"method": "heads"})}
    assert len(keys - {CELL.key}) == 5


def test_a_result_comes_back_as_it_was(tmp_path):
    written = result_of(CELL)
    write_result(written, tmp_path)
    (back,) = read_results(tmp_path)
    assert back.cell == CELL
    assert back.cell.settings == CELL.settings
    assert back.chip_ids == written.chip_ids
    for name in ("per_chip", "lon", "lat", "calibration", "examples"):
        np.testing.assert_array_equal(getattr(back, name), getattr(written, name))
    assert (back.seconds, back.synthetic, back.about) == (1.5, True, {"device": "cpu"})
    write_result(written, tmp_path)  # again: nothing changes
    assert [path.name for path in tmp_path.iterdir()] == [CELL.key]


def test_half_a_result_is_none(tmp_path):
    write_result(result_of(CELL), tmp_path)
    (tmp_path / ".draft.1.tmp").mkdir()
    (tmp_path / ".draft.1.tmp" / "result.json").write_text("{}")
    assert len(list(read_results(tmp_path))) == 1
    (tmp_path / CELL.key / "result.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="holds no complete result: remove the folder"):
        read_result(tmp_path / CELL.key)
