"""docs/tutorial.py: fewer than 40 lines, from a folder and a table to a classifier with intervals."""

import re
import runpy
from pathlib import Path

import pytest

from maskedclip_composer.export.encoder import save_encoder
from maskedclip_composer.models.vit import ImageEncoderConfig, build_image_encoder
from tests.docs.commands import ROOT
from tests.docs.photographs import SOURCES, lay_out

SCRIPT = Path("docs/tutorial.py")
TINY = "vit_tiny_patch16_224"


def test_it_is_short_and_its_page_shows_its_command():
    assert len(SCRIPT.read_text().splitlines()) < 40
    (command,) = re.findall(r"^python docs/tutorial\.py .*$", SCRIPT.read_text(), re.MULTILINE)
    assert command in Path("docs/tutorial.md").read_text()


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("own") / "encoder.safetensors"
    vit = build_image_encoder(ImageEncoderConfig(name=TINY, depth=2), 48).vit
    save_encoder(path, vit, name=TINY, image_size=48, patch_size=16)
    return path


@pytest.mark.parametrize("source", SOURCES)
def test_the_tutorial_fine_tunes_and_prints_intervals(source, own_weights, tmp_path, monkeypatch, capsys):
    photographs = lay_out(source, tmp_path, labelled=40, bare=0)
    tutorial = runpy.run_path(str(ROOT / SCRIPT))["main"]
    monkeypatch.chdir(tmp_path)
    tutorial("photos/", "photos.csv", "runs/tutorial", str(own_weights), epochs=3)
    printed = capsys.readouterr().out
    scores = re.findall(r"(ROC|PRC) (0\.\d{3}) \(95 %: (\d\.\d{3}) to (\d\.\d{3})\)", printed)
    assert [score for score, *_ in scores] == ["ROC", "PRC"]
    for _, mean, low, high in scores:
        assert float(low) <= float(mean) <= float(high)
    assert photographs == 40
    assert "parts: train" in printed
    assert (tmp_path / "runs" / "tutorial" / "eval-mine" / "report" / "report.html").is_file()
