"""What every command line of ours shares: one sentence and exit code 2 for bad input."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from jaxcrop.errors import InputError


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turn an InputError into `error: <its sentence>` on stderr and exit code 2."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
