"""docs/text.md: its lexicon is one, its options are those of the config."""

import re
import shlex
from pathlib import Path

import pytest

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.data.entities import EntityConfig, build_tagger

PAGE = Path("docs/text.md").read_text(encoding="utf-8").replace("\\\n", "")
TRAINING = re.findall(r"^composer train\.py (.*?)(?:\s+#.*)?$", PAGE, re.MULTILINE)


def test_its_lexicon_is_read(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "mine.yaml"
    path.write_text(block)
    text = "Harte Exsudate temporal der Makula; wenige Drusen, Blutungen"
    spans = build_tagger(EntityConfig(lexicon=str(path)))(text)
    assert [text[begin:end] for begin, end in spans] == ["Harte Exsudate", "temporal", "Drusen", "Blutungen"]


@pytest.mark.parametrize("line", TRAINING)
def test_its_options_are_those_of_the_config(line):
    recipe, *overrides = shlex.split(line.replace("…", "data.paired.remote=a"))
    sets = {"data.unpaired.remote=b"} if "mmclip" in recipe else set()
    config = load_config(TrainConfig, recipe, [*overrides, *sets])
    assert (config.data.entities is None) != (config.data.sentences is None)


def test_there_are_commands():
    assert len(TRAINING) == 7
