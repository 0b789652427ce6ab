"""Shards and a text tower for whole training runs at debug size."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.small_run import DEBUG, debug_overrides, write_shards

__all__ = ["DEBUG"]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """19 paired and 33 unpaired records. Read only."""
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def overrides(shards: Path, text_tower: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Overrides that point the debug yaml at the small shards and at a folder of the test's own."""

    def build(*more: str) -> list[str]:
        return [*debug_overrides(shards, text_tower, tmp_path / "runs"), *more]

    return build
