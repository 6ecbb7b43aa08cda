"""What every command line of ours shares: one sentence and exit code 2 for bad input."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from jaxcrop.errors import InputError, UnfinishedWriteError


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turn an InputError into `error: <its sentence>` on stderr and exit code 2."""
    try:
        yield
    except UnfinishedWriteError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(2)  # not sys.exit, which waits for every thread
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
