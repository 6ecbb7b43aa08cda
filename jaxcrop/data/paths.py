"""Where records lie unless told otherwise."""

import os
from pathlib import Path


def default_data_dir() -> Path:
    """Folder of the built records: $JAXCROP_DATA_DIR, else ~/.cache/jaxcrop/data."""
    return Path(os.environ.get("JAXCROP_DATA_DIR") or Path.home() / ".cache" / "jaxcrop" / "data")
