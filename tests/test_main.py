"""`python -m maskedclip_composer`: how a command ends that its own code did not see coming."""

import errno
from types import SimpleNamespace

import maskedclip_composer.__main__ as module


def test_a_disk_that_fills_ends_in_a_message(monkeypatch, capsys):
    def fill(arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "out.csv")

    monkeypatch.setattr(module.importlib, "import_module", lambda name: SimpleNamespace(main=fill))
    assert module.main(["embed", "photos"]) == 2
    told = capsys.readouterr().err
    assert "embed: error" in told
    assert "No space left on device: 'out.csv'" in told
    assert "Traceback" not in told
