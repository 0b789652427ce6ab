"""Every command of README.md, CONTRIBUTING.md and docs/*.md is held to the program that it calls.

What stands behind a green dot:

- docs/start.md: its commands are run, word for word, by `test_start.py`.
- `python -m data_prep ...`: run, in a folder with drawn photographs and public sets in small, but for those in
  `LARGE`, whose parser alone is asked. Drawn photographs are fewer than the page asks for.
- `composer train.py ...`, `composer evaluate.py ...`: the launcher's parser takes its options; the config is loaded
  with the overrides, with tasks and protocols; nothing is trained.
- `python FILE ...`, `python -m MODULE ...`: the program is started until its own parser has taken the words. Scripts
  without options are run.
- `bash FILE ...`: run with stand-ins for what it starts, and what it would have started is checked by these rules.
- `make TARGET`: `make -n` says what it would do. `pip install`: the extras exist. `mlflow`: its parser takes the words.
- The rest is in `ELSEWHERE`, with the test that runs it. What none of this fits fails, by page and line.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.__main__ import main as data_prep
from maskedclip_composer.sweep.__main__ import main as sweep
from tests.docs import evidence
from tests.docs.commands import PAGES, ROOT, Command, commands, fenced
from tests.docs.workspace import make_workspace

# The first words of commands that another test runs.
ELSEWHERE = {
    "sbatch docs/scale/slurm.sh": "tests/test_scale_examples.py::test_slurm_starts_one_launcher_a_node",
    "cd exported/timm && sha256sum": "tests/export/test_folder.py::test_it_appears_whole_with_checksums",
    "python docs/tutorial.py": "tests/docs/test_tutorial.py::test_the_tutorial_fine_tunes_and_prints_intervals",
}
# Run elsewhere in small (test_build.py, test_spark.py, test_synthetic.py in tests/data_prep): minutes, or Java.
LARGE = {"build", "--spark", "--baseline"}
FEWER = ["--paired", "3", "--unpaired", "2", "--downstream", "10", "--size", "64", "--workers", "1"]

TYPED_IN_START = {str(command) for command in fenced(Path("docs/start.md"))}
ALL = [command for page in PAGES for command in commands(page) if str(command) not in TYPED_IN_START]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("reader"))


@pytest.fixture
def reader(workspace, tmp_path, monkeypatch):
    """Stand where a reader stands, with one processor: a second process starts slower than six photographs are done."""
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setenv("FUNDUS_DATA", str(workspace / "fundus"))
    monkeypatch.setenv("COLUMNS", "200")
    return monkeypatch


@pytest.mark.parametrize("command", ALL, ids=str)
def test_a_command_of_the_docs_is_one(command: Command, reader, tmp_path):
    check(command.words, command, reader, tmp_path)


def check(words: list[str], command: Command, reader: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for start, test in ELSEWHERE.items():
        if " ".join(words).startswith(start):
            path, _, name = test.partition("::")
            assert f"def {name}(" in (ROOT / path).read_text(), test
            return
    match words:
        case ["make", *rest]:
            evidence.make_target([word for word in rest if word not in (">", "drill.md")])
        case ["pip", "install", *rest]:
            evidence.installed(rest)
        case ["mlflow", *rest]:
            evidence.mlflow_command(rest)
        case ["composer", *rest]:
            composer(rest, reader)
        case ["bash", script, *rest]:
            started = evidence.script_commands(script, rest, tmp_path)
            assert started
            for found in started:
                check(found, command, reader, tmp_path)
        case ["sleep", _]:
            pass
        case ["python", "-m", "data_prep", *rest]:
            prepare(rest, reader)
        case ["python", "-m", "maskedclip_composer.sweep", *rest]:
            assert sweep([*(word for word in rest if word != "--dry-run"), "--dry-run"]) == 0
        case ["python", "-m", module, "…"]:  # a name in running text
            assert importlib.util.find_spec(f"{module}.__main__") or importlib.util.find_spec(module)
        case ["python", "-m", module, *rest]:
            evidence.understood(reader, module, filled(rest))
        case ["python", "-c", program]:
            exec(compile(program.replace("60_000", "300"), str(command), "exec"), {})
        case ["python", script, *rest] if "argparse" in (ROOT / script).read_text():
            evidence.understood(reader, ROOT / script, filled(rest))
        case ["python", script, *rest]:
            reader.setattr(sys, "argv", [script, *rest])
            evidence.run_program(ROOT / script)
        case _ if "umask" in command.text:
            if shutil.which("openssl") is None:
                pytest.skip("openssl is not installed")
            assert subprocess.run(["bash", "-c", command.text]).returncode == 0
        case _:
            pytest.fail(f"{command}: no test knows how to run this; see the head of tests/docs/test_commands.py")


def filled(words: list[str]) -> list[str]:
    """Put something of a reader's own where the page has a placeholder."""
    return [{"N": "1", "DIR": "shards/paired", "FOLDER": "shards/new"}.get(word, word) for word in words]


def composer(words: list[str], reader: pytest.MonkeyPatch) -> None:
    words = [word.replace("/NAME.yaml", "/maskedclip.yaml") for word in words]
    read = evidence.launched(reader, words)
    load = {"train.py": evidence.training_config, "evaluate.py": evidence.evaluation_config}[read.training_script]
    load(read.training_script_args)


def prepare(words: list[str], reader: pytest.MonkeyPatch) -> None:
    root = "classes" if "class-folders" in words else f"downloads/{words[1]}" if len(words) > 1 else ""
    words = filled([root if word == "DIR" else word for word in words if word != "COMMAND"])
    if words == ["list"]:
        assert data_prep(words) == 0
    elif len(words) < 2:  # a name in running text
        with pytest.raises(SystemExit) as left:
            data_prep([*words, "--help"])
        assert left.value.code == 0
    elif not LARGE.isdisjoint(words):
        evidence.understood(reader, "data_prep", words)
    else:
        if "--out" in words and words[0] != "split":
            shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
        status = data_prep([*words, *(FEWER if words[0] == "synthetic" else [])])
        # Of `overlap` and `prepare --expect` 1 is an answer: there is an overlap, something is missing.
        assert status in ((0, 1) if words[0] == "overlap" or "--expect" in words else (0,))
