"""A folder to write published rows to."""

from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str) -> Path:
        path = tmp_path / "made_up.toml"
        path.write_text(text)
        return path

    return _write
