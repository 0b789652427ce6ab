"""Write a file so that a kill leaves the old one or the new one, never half of it."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write `text` aside, in UTF-8 and with its line ends as they are, then give it its name; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(text, encoding="utf-8", newline="")
    os.replace(aside, path)
