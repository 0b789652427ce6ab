"""Manifest, report and data card of prepared shards, collected for the record of a run."""

import shutil
import tempfile
from pathlib import Path

from streaming.base.storage import CloudDownloader

from maskedclip_composer.data.config import DataConfig
from maskedclip_composer.data.photograph import REPORT

# `data_prep` writes them beside the shards of a set, and once more above the groups of a build.
NAMES = ("DATA_CARD.md", "manifest.parquet", REPORT, "contamination.csv")


def collect_documents(config: DataConfig, folder: Path) -> list[Path]:
    """Copy the documents of each stream into `folder`.

    They are looked for where the stream's shards are and in the folder above; where neither has them, as with shards
    of another origin, there is nothing to collect.

    Args:
        config: The streams.
        folder: Each place that has documents gets a folder in it, named by the first stream that reads from there.

    Returns:
        The copies.
    """
    found: list[Path] = []
    places: set[str] = set()
    for name, stream in config.streams().items():
        remote, local = stream.location()
        here = (remote or local).rstrip("/")
        above = here.rpartition("/")[0] if "://" in here else str(Path(here).parent)
        for place in (here, above):
            if place in places:
                break
            copies = [path for document in NAMES if (path := _copy(place, document, folder / name)) is not None]
            if copies:
                places.add(place)
                found += copies
                break
    return found


def _copy(place: str, document: str, folder: Path) -> Path | None:
    target = folder / document
    source = f"{place}/{document}"
    if "://" not in place:
        if not Path(source).is_file():
            return None
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        return target
    with tempfile.TemporaryDirectory() as aside:
        part = Path(aside, document)
        try:
            CloudDownloader.direct_download(source, str(part))
        except Exception:  # each cloud's client has its own; what is not there is no fault
            return None
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(part, target)
    return target
