"""A whole training run at debug size: its shards, and what points the debug yaml at them."""

from pathlib import Path

from streaming import MDSWriter

from maskedclip_composer.data.schema import COLUMNS
from tests.data.conftest import record

DEBUG = "yamls/debug.yaml"


def write_shards(root: Path) -> Path:
    """Write 19 paired and 33 unpaired records: with 8 of each a step, an epoch has 4 steps."""
    for kind, samples in (("paired", 19), ("unpaired", 33)):
        with MDSWriter(out=str(root / kind), columns=COLUMNS[kind], hashes=["xxh64"], size_limit=20_000) as writer:
            for number in range(samples):
                writer.write(record(kind, number))
    return root


def debug_overrides(shards: Path, text_tower: Path, output: Path) -> list[str]:
    """Return the overrides of the debug yaml for small shards and an output folder of one's own."""
    return [
        f"data.paired.remote={shards / 'paired'}",
        f"data.unpaired.remote={shards / 'unpaired'}",
        "data.paired.split=null",
        "data.unpaired.split=null",
        "data.max_tokens=32",
        f"text_encoder.name={text_tower}",
        f"output={output}",
        "trainer.progress_bar=false",
    ]
