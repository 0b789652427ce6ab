"""docs/start.md, word for word: every command of its blocks, in their order, on a folder of photographs and a table.

The words are the page's; what is called is the program behind them, in this process: a start of Python with Composer
takes ten seconds, and Composer's launcher is tested elsewhere. The photographs are real where FUNDUS_DATA names some,
and fewer than the page speaks of. Of the installation only what must exist is checked.
"""

import re
from pathlib import Path

import pytest

import evaluate
import train
from data_prep.__main__ import main as data_prep
from maskedclip_composer.__main__ import main as maskedclip_composer
from tests.docs import evidence
from tests.docs.commands import ROOT, fenced
from tests.docs.photographs import SOURCES, lay_out

PAGE = Path("docs/start.md")
COMMANDS = fenced(PAGE)
SETUP = {"git clone URL maskedclip_composer", "cd maskedclip_composer", "source .venv/bin/activate"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("source", SOURCES)
def test_the_page_can_be_followed_word_for_word(source, tmp_path, monkeypatch, capfd):
    lay_out(source, tmp_path, labelled=40, bare=16)
    for path in ROOT.iterdir():  # what a clone has
        if path.name not in ("runs", "data", "shards", "build") and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        run(command.words, command)
    told = capfd.readouterr().out
    check_what_the_page_promises(tmp_path, told)


def run(words: list[str], command) -> None:
    match words:
        case _ if command.text in SETUP:
            return
        case ["make", *rest]:
            evidence.make_target(rest)
        case ["mlflow", *rest]:
            evidence.mlflow_command(rest)
        case ["python", "-m", "data_prep", *rest]:
            assert data_prep(rest) == 0, command
        case ["python", "-m", "maskedclip_composer", *rest]:
            assert maskedclip_composer(rest) == 0, command
        case ["composer", "train.py", *rest]:
            assert train.main(rest) == 0, command
        case ["composer", "evaluate.py", *rest]:
            assert evaluate.main(rest) == 0, command
        case _:
            pytest.fail(f"{command}: {command.text} is not run")


def check_what_the_page_promises(folder: Path, told: str) -> None:
    named = re.findall(r"`((?:runs|pictures|exported)/[\w./-]+\.\w+)`", PAGE.read_text())
    named += re.findall(r"--(?:out|page) ([\w./-]+\.\w+)", PAGE.read_text())
    assert len(named) >= 8
    for path in named:
        assert (folder / path).is_file(), f"{PAGE} names {path}"
    for place in ("runs/start/pictures/*.png", "shards/*/contact_sheet.jpg", "shards/*/quarantine.csv"):
        assert list(folder.glob(place)), place
    run_folder = folder / "runs" / "start"
    for name in ("encoder.safetensors", "metrics.jsonl"):
        assert (run_folder / name).is_file()
    assert "ROC / PRC" in told
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), {})
