import io
import subprocess
import urllib.request

import pytest

from tests import audit
from tests.audit import findings, main, tell

ANSWER = [
    {"name": "torch", "version": "2.7.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.8.0"]}]},
    {"name": "mlflow", "version": "2.22", "vulns": [{"id": "GHSA-2", "fix_versions": []}]},
    {"name": "numpy", "version": "2.0", "vulns": []},
    {"name": "own", "skip_reason": "not found"},
]


def test_what_is_not_listed_fails_and_is_named(capsys):
    assert tell(ANSWER, {"PYSEC-1": "not used"}) == 1
    printed = capsys.readouterr().out
    assert "3 packages, 2 advisories, 1 of them not listed" in printed
    assert "GHSA-2: mlflow 2.22, mended in no release" in printed
    assert "PYSEC-1" not in printed
    assert "not checked: own" in printed


def test_all_listed_is_well_and_what_is_gone_is_told(capsys):
    assert tell(ANSWER, {"PYSEC-1": "a", "GHSA-2": "b", "GHSA-3": "c"}) == 0
    assert "not found any more: GHSA-3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("body", "said"),
    [(b'{"vulnerabilities": []}', "has no advisories"), (b"{}", "has no advisories"), (b"<html>", "Expecting value")],
)
def test_a_service_that_knows_nothing_is_no_clean_bill(monkeypatch, capsys, body, said):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(body))
    assert main("/nowhere") == 2
    printed = capsys.readouterr().out
    assert "nothing was checked" in printed
    assert said in printed


def test_without_a_network_it_says_so(monkeypatch, capsys):
    def refuse(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert main("/nowhere") == 2
    assert "Name or service not known" in capsys.readouterr().out


def test_within_reach_the_packages_are_checked(monkeypatch, capsys):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b'{"vulnerabilities": [{"id": "A"}]}'))
    monkeypatch.setattr(audit, "pip_audit", lambda _: (ANSWER, ""))
    assert main("/nowhere") == 1
    assert findings(ANSWER).keys() == {"PYSEC-1", "GHSA-2"}
    monkeypatch.setattr(audit, "pip_audit", lambda _: ([], "pip-audit could not be installed"))
    assert main("/nowhere") == 2
    assert "could not be installed" in capsys.readouterr().out


def test_the_environment_is_made_once_and_again_for_other_releases(monkeypatch, tmp_path):
    commands = []

    def run(command, **_):
        commands.append(command)
        (tmp_path / "audit").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, 0, '{"dependencies": []}', "")

    monkeypatch.setattr(subprocess, "run", run)
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("pip_audit==1\n")
    monkeypatch.setattr(audit, "CONSTRAINTS", constraints)
    for _ in range(2):
        assert audit.pip_audit(tmp_path / "audit") == ([], "")
    assert len(commands) == 4  # venv, pip and two audits
    assert str(constraints) in commands[1]
    constraints.write_text("pip_audit==2\n")
    audit.pip_audit(tmp_path / "audit")
    assert len(commands) == 7


def test_what_cannot_be_installed_is_said_and_tried_again(monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: slow\nERROR: No matching distribution")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert audit.pip_audit(tmp_path) == ([], "ERROR: No matching distribution")
    assert not list(tmp_path.iterdir())


def test_pip_audit_is_pinned():
    assert "\npip_audit==" in audit.CONSTRAINTS.read_text(encoding="utf-8")
