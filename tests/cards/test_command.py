import subprocess
import sys

import pytest

from maskedclip_composer.__main__ import main


def test_the_command_writes_both_cards(run, tmp_path, capsys):
    assert main(["card", str(run), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / f"{name}_card.md") for name in ("model", "data")]
    assert not (run / "model_card.md").exists()
    assert main(["card", str(run)]) == 0
    assert (run / "data_card.md").read_text() == (tmp_path / "out" / "data_card.md").read_text()


def test_what_is_no_run_is_an_error_in_words(tmp_path, capsys):
    assert main(["card", str(tmp_path)]) == 2
    assert "holds no config.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit) as refused:
        main(["card"])
    assert refused.value.code == 2


def test_help_and_a_card_without_suites_need_no_torch(run):
    """torch takes seconds."""
    code = "import sys; from maskedclip_composer.cards.command import main; main(sys.argv[1:])"
    code += "; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr or "torch was imported"
