"""An export goes to a hub whole, verified, and without what lies beside it."""

import shutil

import huggingface_hub.constants
import pytest
from huggingface_hub.utils import reset_sessions

from maskedclip_composer.__main__ import main
from maskedclip_composer.export.folder import write_sums
from tests.export.hub import COMMIT, hub

TOKEN = "hf_" + "x" * 30


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        reset_sessions()
        yield server
    monkeypatch.undo()
    reset_sessions()


def content(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_files_arrive(server, exported, capsys):
    assert main(["push", str(exported["hf"]), "clinic/retina", "--private", "--revision", "v1"]) == 0
    assert server.files == content(exported["hf"])
    assert server.created["name"] == "retina"
    assert server.created["private"] is True
    assert server.branches == ["v1"]
    assert any(path.endswith("/commit/v1") for path in server.paths)
    printed = capsys.readouterr()
    assert COMMIT in printed.out
    assert f"Bearer {TOKEN}" in server.tokens
    assert TOKEN not in printed.out + printed.err


def test_only_what_was_exported_is_sent(server, exported, tmp_path):
    folder = shutil.copytree(exported["timm"], tmp_path / "timm")
    (folder / ".notes").write_text("of a patient")
    assert main(["push", str(folder), "clinic/retina"]) == 0
    assert server.files == content(exported["timm"])
    assert server.created.get("private", False) is False
    assert any(path.endswith("/commit/main") for path in server.paths)


def test_a_changed_folder_is_not_sent(server, exported, tmp_path, capsys):
    folder = shutil.copytree(exported["timm"], tmp_path / "timm")
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert main(["push", str(folder), "clinic/retina"]) == 2
    assert "config.json: changed" in capsys.readouterr().err
    assert server.paths == []


def test_a_dry_run_sends_nothing(server, exported, tmp_path, capsys):
    folder = shutil.copytree(exported["timm"], tmp_path / "timm")
    (folder / "TERMS.md").write_text("No redistribution.")
    write_sums(folder)
    assert main(["push", str(folder), "clinic/retina", "--dry-run"]) == 0
    assert server.paths == []
    printed = capsys.readouterr().out
    assert "TERMS.md tells the terms of the training data" in printed
    assert "  model.safetensors\n" in printed
    assert "was sent to clinic/retina" in printed


@pytest.mark.parametrize(("status", "said"), [(401, "401 Client Error"), (403, "403 Forbidden"), (500, "500 Server")])
def test_a_refusal_is_one_message_without_the_token(server, exported, capsys, status, said):
    server.refuses = status
    assert main(["push", str(exported["timm"]), "clinic/retina"]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "huggingface-cli whoami" in printed
    assert TOKEN not in printed
    assert server.files == {}


def test_a_name_that_is_none_and_a_hub_that_is_off(exported, capsys, server, monkeypatch):
    assert main(["push", str(exported["timm"]), "a/b/c/d"]) == 2
    assert "REPO=a/b/c/d is no name of a repository" in capsys.readouterr().err
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    reset_sessions()
    assert main(["push", str(exported["timm"]), "clinic/retina"]) == 2
    assert "switched off by HF_HUB_OFFLINE" in capsys.readouterr().err
    assert server.files == {}
