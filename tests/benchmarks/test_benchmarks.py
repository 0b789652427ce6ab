"""What the benchmarks print, at sizes that take a second; the times themselves are nobody's business here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPREAD = re.compile(r"([\d.e+]+) \(([\d.e+]+)-([\d.e+]+)\)")


def tables(script: str, *arguments: str) -> list[dict[str, list[str]]]:
    """Run a benchmark; return its tables, each as rows by their first cell (header included)."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[dict[str, list[str]]] = [{}]
    for line in done.stdout.splitlines():
        if not line.startswith("|"):
            found += [{}] if found[-1] else []
            continue
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        workers = f" {cells[0]}" if cells[0].isdigit() and script == "loader.py" else ""
        found[-1][name + workers] = cells
    return [table for table in found if table]


def check_spreads(table: dict[str, list[str]], columns: int) -> None:
    """The last `columns` of every row are a median between two extremes, all positive."""
    header, rule, *rows = table.values()
    assert set(rule) == {"---"}
    for row in rows:
        assert len(row) == len(header)
        for cell in row[-columns:]:
            match = SPREAD.fullmatch(cell)
            assert match, cell
            middle, least, largest = map(float, match.groups())
            assert 0 <= least <= middle <= largest


@pytest.mark.slow
def test_loader_compares_every_variant_with_the_peer_of_as_many_workers():
    sizes = ["--images=8", "--distinct=2", "--size=64", "--batch=4", "--rounds=2"]
    (table,) = tables("loader.py", *sizes)
    check_spreads(table, columns=3)
    assert [name for name in table if name.startswith("build_loader")] == [
        "build_loader 0",
        "build_loader, normalised on the CPU 0",
        "build_loader, predownload of Streaming 0",
        "build_loader 2",
        "build_loader, predownload of Streaming 2",
    ]
    for workers in (0, 2):
        assert table[f"ImageFolder, PIL {workers}"][2] == "1.00 (1.00-1.00)"


@pytest.mark.slow
def test_preparation_is_run_at_every_number_of_rows():
    (table,) = tables("prepare_memory.py", "--rows", "20", "40")
    assert list(table) == ["rows", "---", "20", "40"]
    assert all(int(cell) > 0 for cell in (table["20"][1], table["40"][1]))


@pytest.mark.slow
def test_evaluation_compares_its_loader_and_its_bootstrap_with_peers():
    sizes = ["--images=16", "--distinct=2", "--size=64", "--test=20", "--draws=3", "--rounds=2"]
    epoch, draws = tables("evaluation.py", *sizes)
    for table in (epoch, draws):
        check_spreads(table, columns=2)
    assert "decoded once, kept in memory" in epoch
    assert "weighted_scores" in draws
