"""docs/data.md: every set with its licence. Its commands: tests/docs."""

from pathlib import Path

import pytest

from data_prep.readers.catalogue import DATASETS

PAGE = Path("docs/data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DATASETS)
def test_the_table_of_sets_is_that_of_the_catalogue(name):
    dataset = DATASETS[name]
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}` "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    count = "" if dataset.count is None else f"{dataset.count:,}"
    assert cells[:5] == [f"`{name}` {dataset.title}", count, dataset.kind, dataset.task, dataset.licence or "your own"]
    # Those that tests/data_prep/test_real_data.py reads.
    real = name in {"odir5k", "idrid", "hrf", "chase-db1", "les-av"}
    assert cells[5] == ("real files" if real else "official layout (synthetic)")
