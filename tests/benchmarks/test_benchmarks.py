"""What the benchmarks print, at sizes that take a second; the times themselves are nobody's business here."""

import gc
import importlib
import importlib.util
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SPREAD = re.compile(r"([\d.e+]+) \(([\d.e+]+)-([\d.e+]+)\)")


def tables(script: str, *arguments: str) -> list[dict[str, list[str]]]:
    """Run a benchmark; return its tables, each as rows by their first cell (header included)."""
    return output(script, *arguments)[0]


def output(script: str, *arguments: str, statuses: tuple[int, ...] = (0,)) -> tuple[list[dict[str, list[str]]], str]:
    """Run a benchmark; return its tables and all that it prints."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=480)
    assert done.returncode in statuses, done.stderr[-2000:]
    return parse(done.stdout, key_of_two_cells=script == "loader.py")


def parse(printed: str, *, key_of_two_cells: bool = False) -> tuple[list[dict[str, list[str]]], str]:
    """Return the tables of what a benchmark printed, and all of it."""
    found: list[dict[str, list[str]]] = [{}]
    for line in printed.splitlines():
        if not line.startswith("|"):
            found += [{}] if found[-1] else []
            continue
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        workers = f" {cells[0]}" if cells[0].isdigit() and key_of_two_cells else ""
        found[-1][name + workers] = cells
    return [table for table in found if table], printed


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


@pytest.mark.benchmark
def test_loader_compares_every_variant_with_the_peer_of_as_many_workers():
    sizes = ["--images=8", "--distinct=2", "--size=64", "--batch=4", "--rounds=2"]
    # At this size nothing says whether the goals are met.
    (table, large), printed = output("loader.py", *sizes, "--large-images=4", "--large-size=512", statuses=(0, 1))
    check_spreads(table, columns=3)
    check_spreads(large, columns=3)
    assert [name for name in table if name.startswith("build_loader")] == [
        "build_loader 0",
        "build_loader, normalised on the CPU 0",
        "build_loader, threads of Streaming 0",
        "build_loader, stored pixels 0",
        "build_loader, stored pixels of half the size 0",
        "build_loader 2",
        "build_loader, threads of Streaming 2",
        "build_loader, stored pixels of half the size 2",
    ]
    assert {"build_loader, exact 0", "build_loader, scaled 0"} < set(large)
    for workers in (0, 2):
        assert table[f"ImageFolder, PIL {workers}"][2] == "1.00 (1.00-1.00)"
    gates = [line for line in printed.splitlines() if line.startswith("gate: ")]
    assert len(gates) == 7
    judged = re.compile(rf"gate: .*, \d workers, CPU <= \d\.\d\d: {SPREAD.pattern} (ok|MISSED)")
    for gate in gates:
        installed = "litdata" not in gate or importlib.util.find_spec("litdata")
        assert judged.fullmatch(gate) if installed else "skipped, litdata is not installed" in gate


def test_a_missed_goal_and_an_absent_peer_are_said(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    loader = importlib.import_module("loader")
    cost = importlib.import_module("rounds").Cost
    costs = {("a", 0): [cost(cpu=c, wall=1) for c in (1, 2, 3)], ("b", 0): [cost(cpu=2, wall=1)] * 3}
    assert loader.check(costs, [("a", "b", 0, 1.0), ("a", "c", 0, 0.1)])
    assert not loader.check(costs, [("a", "b", 0, 0.99)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "gate: a / b, 0 workers, CPU <= 1.00: 1.00 (0.50-1.50) ok"
    assert "skipped, c is not installed" in lines[1]
    assert lines[3].endswith("1.00 (0.50-1.50) MISSED")


class _InPlace:
    """Stands for a pool of spawned processes, each of which would import everything for tens of seconds."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> "_InPlace":
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, *call: Any) -> SimpleNamespace:
        function, *arguments = pickle.loads(pickle.dumps(call))  # a spawned process gets copies as well
        found = function(*arguments)
        gc.collect()  # Streaming opens a folder once in a process, as long as its data set lives
        return SimpleNamespace(result=lambda: found)


@pytest.mark.benchmark
def test_workers_measures_every_number_of_workers_of_a_config(tmp_path, monkeypatch, capsys):
    import yaml

    from tests.data_prep.drawing import run, save_retinas

    save_retinas(tmp_path / "images", 8)
    shards = tmp_path / "shards"
    assert run("manifest", "--images", tmp_path / "images", "--out", shards, "--size", "48", "--workers", "1") == 0
    data = {"unpaired": {"remote": str(shards), "batch_size": 4}, "image_size": 32, "num_workers": 0}
    settings = {
        "data": data,
        "image_encoder": {"name": "vit_tiny_patch16_224"},
        "bridge": {"depth": 0},
        "objectives": {"mim": {}},
        "trainer": {"max_duration": "1ep"},
        "run_name": "a",
        "output": str(tmp_path),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    capsys.readouterr()
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    workers = importlib.import_module("workers")
    monkeypatch.setattr(workers, "ProcessPoolExecutor", _InPlace)
    monkeypatch.setattr(workers, "counts", lambda cores: [0, 1])
    arguments = ["--seconds=0.1", "--target=1", str(tmp_path / "run.yaml"), "data.flip=0.0"]
    monkeypatch.setattr(sys, "argv", ["workers.py", *arguments])
    assert workers.main() == 0
    (table,), printed = parse(capsys.readouterr().out)
    header, _, *rows = table.values()
    assert header == ["images/s (wall)", "CPU ms an image", "MiB/s read"]
    assert set(table) - {"workers", "---"} == {"0", "1"}
    assert all(float(cell) >= 0 for row in rows for cell in row)
    assert all(float(row[0]) > 0 for row in rows)
    assert "Advice: data.num_workers=0 loads" in printed


def test_advice_takes_the_fewest_workers_that_are_enough(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    workers = importlib.import_module("workers")
    rates = [
        workers.Rate(workers=w, images=i, cpu=0.002, bytes=1e5) for w, i in ((0, 400), (1, 450), (2, 900), (4, 910))
    ]
    assert workers.counts(2) == [0, 1, 2]
    assert workers.counts(12) == [0, 1, 2, 3, 4, 8, 12]
    assert "data.num_workers=2 loads 900" in workers.advise(rates, 600, 4)
    assert "data.num_workers=2 loads 900" in workers.advise(rates, None, 4)
    assert "about 10 cores" in workers.advise(rates, 5000, 4)


@pytest.mark.benchmark
def test_preparation_is_run_at_every_number_of_rows():
    (table,) = tables("prepare_memory.py", "--rows", "20", "40")
    assert list(table) == ["rows", "---", "20", "40"]
    assert all(int(cell) > 0 for cell in (table["20"][1], table["40"][1]))


@pytest.mark.benchmark
def test_evaluation_compares_its_loader_and_its_bootstrap_with_peers():
    sizes = ["--images=16", "--distinct=2", "--size=64", "--test=20", "--draws=3", "--rounds=2"]
    epoch, draws = tables("evaluation.py", *sizes)
    for table in (epoch, draws):
        check_spreads(table, columns=2)
    assert "decoded once, kept in memory" in epoch
    assert "weighted_scores" in draws
