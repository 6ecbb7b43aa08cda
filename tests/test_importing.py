"""Imports without what a library would import in passing."""

import subprocess
import sys

import pytest

from jaxcrop.importing import unseen


def test_a_block_does_not_see_a_module_that_is_there_before_and_after(tmp_path, monkeypatch):
    (tmp_path / "made_for_this_test.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with unseen("made_for_this_test"), pytest.raises(ImportError):
        import made_for_this_test
    import made_for_this_test

    with unseen("made_for_this_test"):
        import made_for_this_test as again
    assert again is made_for_this_test


def test_training_does_not_import_pytorch():
    pytest.importorskip("torch")
    program = "import sys, jaxcrop.training.loop; print('torch' in sys.modules); import torch"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert found.stdout.decode().split() == ["False"]
