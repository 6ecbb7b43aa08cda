"""Imports of libraries without what they would import in passing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unseen(module: str) -> Iterator[None]:
    """A block in which importing `module` fails as if it were not installed, unless it has been."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None
    try:
        yield
    finally:
        del sys.modules[module]
