from pathlib import Path

import pytest

from jaxcrop.data.reading import Records, open_records


@pytest.fixture(scope="session")
def synthetic_records(tmp_path_factory) -> Records:
    """Records of a small synthetic region, built by the ordinary builder."""
    from jaxcrop.data.build import build
    from jaxcrop.data.synthetic import write_region

    folder: Path = tmp_path_factory.mktemp("africa") / "source"
    write_region(folder, "africa", chips=10, seed=7)
    build("sact", folder, folder / "records")
    return open_records(folder / "records", "sact")
