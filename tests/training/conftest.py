"""Shards and a text tower for whole training runs at debug size."""

from collections.abc import Callable
from pathlib import Path

import pytest
from streaming import MDSWriter

from maskedclip_composer.data.schema import COLUMNS
from tests.data.conftest import record

DEBUG = "yamls/debug.yaml"


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """19 paired and 33 unpaired records. Read only."""
    root = tmp_path_factory.mktemp("shards")
    for kind, samples in (("paired", 19), ("unpaired", 33)):
        with MDSWriter(out=str(root / kind), columns=COLUMNS[kind], hashes=["xxh64"], size_limit=20_000) as writer:
            for number in range(samples):
                writer.write(record(kind, number))
    return root


@pytest.fixture
def overrides(shards: Path, text_tower: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Overrides that point the debug yaml at the small shards and at a folder of the test's own."""

    def build(*more: str) -> list[str]:
        return [
            f"data.paired.remote={shards / 'paired'}",
            f"data.unpaired.remote={shards / 'unpaired'}",
            "data.paired.split=null",
            "data.unpaired.split=null",
            "data.max_tokens=32",
            f"text_encoder.name={text_tower}",
            f"output={tmp_path / 'runs'}",
            "trainer.progress_bar=false",
            *more,
        ]

    return build
