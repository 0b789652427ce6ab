"""docs/use.md, word for word, in a folder where its names are something small."""

import re
import shlex
from pathlib import Path

import pytest

from maskedclip_composer.__main__ import main
from tests.data_prep.drawing import save_retinas, write_csv

PAGE = Path(__file__).parents[2] / "docs" / "use.md"


@pytest.fixture
def reader(run_folder, tmp_path, monkeypatch):
    place = tmp_path / "data" / "demo" / "photographs"
    rows = []
    for number, name in enumerate(save_retinas(place / "images", 4)):
        image = (place / "images" / name).rename(place / "images" / f"downstream-0000{number}_left.jpg")
        rows.append({"image": f"images/{image.name}", "label": "normal fundus"})
    write_csv(place / "downstream.csv", rows)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "maskedclip").symlink_to(run_folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    return tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_every_command_and_line_of_python_works(reader):
    commands = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    assert len(commands) >= 5
    for command in commands:
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "maskedclip_composer"]
        assert main(words[3:]) == 0, command
    for name in ("embeddings.parquet", "scores.csv", "grades.csv", "hits.csv", "hits.html", "alike.csv"):
        assert (reader / name).is_file()
    names: dict = {}
    for block in blocks("python"):
        exec(block, names)
    assert names["features"].shape[1] == 192
    assert names["cosines"].shape == (1, 2)


def test_the_options_that_the_page_names_are_those_of_the_commands(capsys):
    known = set()
    for name in ("embed", "zero-shot", "retrieve"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        known |= set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    text = re.sub(r"`python -m maskedclip_composer export[^`]*`", "", PAGE.read_text(encoding="utf-8"))
    assert set(re.findall(r"--[a-z][a-z-]+", text)) <= known
