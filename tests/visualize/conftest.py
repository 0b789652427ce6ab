from pathlib import Path

import pytest

from tests.data_prep.drawing import save_retinas, write_csv


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    """A table of eight photographs of four patients and two labels, and of one that is cut short."""
    folder = tmp_path_factory.mktemp("eyes")
    names = save_retinas(folder, 8)
    (folder / "broken.jpg").write_bytes((folder / names[0]).read_bytes()[:300])
    rows = [
        {
            "image": name,
            "label": "glaucoma" if number % 3 else "a very long name of a disease, with all its stages and signs",
            "patient": f"p{number // 2}",
            "camera": "" if number == 5 else "one" if number < 4 else "two",
            "text": "glaucoma | fundus" if number % 2 else "",
        }
        for number, name in enumerate([*names, "broken.jpg"])
    ]
    return write_csv(folder / "table.csv", rows)
