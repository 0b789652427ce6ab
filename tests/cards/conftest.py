from pathlib import Path

import pytest

from tests.cards.small import write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run; its set is under CC BY 4.0."""
    return write_run(tmp_path / "runs" / "small")
