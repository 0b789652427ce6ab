"""docs/data.md: every set with its licence, and commands that the command line understands."""

import re
import shlex
from pathlib import Path

import pytest

from data_prep import build, check, overlap, prepare, table
from data_prep.readers.catalogue import DATASETS

PAGE = Path("docs/data.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"(?:^|`)python -m data_prep ([a-z][^`\n]*)", PAGE, re.MULTILINE)


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


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_parse(line):
    import argparse

    parser = argparse.ArgumentParser(exit_on_error=False)
    subparsers = parser.add_subparsers(dest="command", required=True)
    prepare.add_list_parser(subparsers)
    for command in (build, check, overlap, prepare, table):
        command.add_parser(subparsers)
    assert callable(parser.parse_args(shlex.split(line)).run)


def test_there_are_commands():
    assert len(COMMANDS) >= 10
