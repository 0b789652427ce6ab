"""docs/cards.md and the code in a card: what they show works."""

import re
import shlex
import shutil
from pathlib import Path

from PIL import Image

from maskedclip_composer.__main__ import main
from maskedclip_composer.cards.write import write_cards
from tests.cards.small import write_run, write_suite

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cards.md").read_text(encoding="utf-8")


def test_the_commands_of_the_page_run(tmp_path, monkeypatch):
    run = write_run(tmp_path / "runs" / "maskedclip")
    write_suite(tmp_path / "runs" / "evaluation", run)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^python -m maskedclip_composer (card .*)$", PAGE, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert main(shlex.split(command)) == 0
    assert "### Suite evaluation" in Path("published/maskedclip/model_card.md").read_text()


def test_the_headings_of_the_page_are_those_of_a_card(tmp_path):
    model, _ = write_cards(write_run(tmp_path / "run"))
    table = PAGE.split("| heading | from |")[1].split("\n\n")[0]
    headings = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert len(headings) == 9
    assert [heading for heading in headings if f"\n## {heading}\n" not in model.read_text()] == []


def test_the_code_of_a_card_opens_the_whole_model(run_folder, tmp_path, monkeypatch):
    shutil.copytree(run_folder, tmp_path / "runs" / run_folder.name)
    monkeypatch.chdir(tmp_path)
    model, _ = write_cards(Path("runs", run_folder.name))
    Image.effect_noise((64, 64), 80).convert("RGB").save("photograph.jpg")
    (code, *_) = re.findall(r"```python\n(.*?)```", model.read_text(), re.DOTALL)
    names = {}
    exec(compile(code, "card", "exec"), names)
    assert names["features"].shape == (1, 192)
    assert "192 numbers" in code
    inline = re.search(r"`(model\.encode_text\(.*?\))`", model.read_text())
    assert inline is not None
    assert eval(inline[1], names).shape[0] == 1
