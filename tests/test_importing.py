"""Imports without what a library would import in passing."""

import subprocess
import sys

import pytest

from jaxcrop.importing import unseen


def test_a_block_does_not_see_a_module_that_is_there_before_and_after():
    assert "wave" not in sys.modules
    with unseen("wave"), pytest.raises(ImportError):
        import wave
    import wave

    with unseen("wave"):
        import wave as again
    assert again is wave


def test_training_does_not_import_pytorch():
    pytest.importorskip("torch")
    program = "import sys, jaxcrop.training.loop; print('torch' in sys.modules); import torch"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert found.stdout.decode().split() == ["False"]
