"""docs/export.md, block by block, in one folder."""

import re
import subprocess
from pathlib import Path

import pytest

from maskedclip_composer.__main__ import main
from tests.data_prep.drawing import retina
from tests.export.test_push import server

__all__ = ["server"]
PAGE = Path("docs/export.md")


@pytest.mark.usefixtures("server")
def test_every_block_runs(run_folder, tmp_path, monkeypatch):
    blocks = re.findall(r"```(bash|python)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert [kind for kind, _ in blocks].count("python") == 5
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "maskedclip").symlink_to(run_folder)
    retina(200, 150, radius=70).save(tmp_path / "photograph.jpg")
    monkeypatch.chdir(tmp_path)
    for kind, text in blocks:
        if kind == "python":
            exec(text, {})
            continue
        for line in text.splitlines():
            words = line.split()
            if words[:3] == ["python", "-m", "maskedclip_composer"]:
                assert main(words[3:]) == 0, line
            else:
                assert subprocess.run(line, shell=True, capture_output=True).returncode == 0, line
