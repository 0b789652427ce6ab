"""An exported folder is whole or not there, and knows its files."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from maskedclip_composer.errors import UserError
from maskedclip_composer.export import folder as module
from maskedclip_composer.export.folder import SUMS, read_sums, whole_folder, write_sums
from maskedclip_composer.export.golden import DESCRIPTION, FORMAT


def fill(folder: Path, content: str, *, overwrite: bool = False) -> None:
    with whole_folder(folder, overwrite=overwrite) as aside:
        (aside / "part").mkdir()
        (aside / "part" / "weights").write_text(content)
        (aside / "README.md").write_text("for people")
        (aside / DESCRIPTION).write_text(json.dumps({"format": FORMAT}))
        assert aside.parent == folder.parent.resolve()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_appears_whole_with_checksums(tmp_path):
    fill(tmp_path / "deep" / "out", "one")
    assert names(tmp_path / "deep") == ["out"]
    assert list(read_sums(tmp_path / "deep" / "out")) == [DESCRIPTION, "part/weights"]
    checked = subprocess.run(
        ["sha256sum", "--check", SUMS], cwd=tmp_path / "deep" / "out", capture_output=True, text=True
    )
    assert checked.stdout == f"{DESCRIPTION}: OK\npart/weights: OK\n"


def test_a_failure_half_way_leaves_what_was_there(tmp_path):
    def fail(folder: Path, *, overwrite: bool) -> None:
        with whole_folder(folder, overwrite=overwrite) as aside:
            (aside / "weights").write_text("half")
            raise RuntimeError("of the disk")

    fill(tmp_path / "out", "one")
    with pytest.raises(RuntimeError, match="of the disk"):
        fail(tmp_path / "out", overwrite=True)
    with pytest.raises(RuntimeError, match="of the disk"):
        fail(tmp_path / "new", overwrite=False)
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "part" / "weights").read_text() == "one"


def test_an_export_is_replaced_only_when_asked(tmp_path):
    fill(tmp_path / "out", "one")
    with pytest.raises(UserError, match="holds an export already"):
        fill(tmp_path / "out", "two")
    fill(tmp_path / "out", "two", overwrite=True)
    assert (tmp_path / "out" / "part" / "weights").read_text() == "two"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_export_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("dear")
    for place in (tmp_path / "home", tmp_path / "home" / "thesis.txt"):
        with pytest.raises(UserError, match="is no export"):
            fill(place, "one", overwrite=overwrite)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "dear"
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty", "one", overwrite=overwrite)
    assert (tmp_path / "empty" / "part").exists()


def test_a_folder_of_others_with_checksums_is_no_export(tmp_path):
    """A download, say: SHA256SUMS is a common name."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("dear")
    for content in (None, "{}", "[]", "no JSON"):
        if content is not None:
            (tmp_path / "out" / DESCRIPTION).write_text(content)
        write_sums(tmp_path / "out")
        with pytest.raises(UserError, match="is no export"):
            fill(tmp_path / "out", "two", overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "dear"


@pytest.mark.parametrize("name", [".git/HEAD", "notes.txt", "part/.hidden", "link"])
def test_what_others_put_into_an_export_is_not_deleted(tmp_path, name):
    fill(tmp_path / "out", "one")
    path = tmp_path / "out" / name
    path.parent.mkdir(exist_ok=True)
    if name == "link":
        path.symlink_to(tmp_path)
    else:
        path.write_text("dear")
    with pytest.raises(UserError, match=rf"holds {name}, which the export did not write"):
        fill(tmp_path / "out", "two", overwrite=True)
    assert path.exists()
    assert (tmp_path / "out" / "part" / "weights").read_text() == "one"


def test_what_a_killed_export_left_is_mended(tmp_path, monkeypatch):
    """Killed between two renames: the old folder has lost its name, and the new one is beside it."""
    fill(tmp_path / "out", "one")
    os.rename(tmp_path / "out", tmp_path / ".out.old")
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half").write_text("")
    with pytest.raises(UserError, match="holds an export already"):
        fill(tmp_path / "out", "two")
    assert (tmp_path / "out" / "part" / "weights").read_text() == "one"
    fill(tmp_path / "out", "two", overwrite=True)
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "part" / "weights").read_text() == "two"


def test_the_name_is_given_last(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "publish", lambda aside, folder: seen.append((aside.name, folder.exists())))
    with whole_folder(tmp_path / "out", overwrite=False) as aside:
        (aside / "weights").write_text("all")
        assert not (tmp_path / "out").exists()
    assert seen == [(".out.partial", False)]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out .*file/out cannot be written: .*Not a directory"):
        fill(tmp_path / "file" / "out", "one")


@pytest.mark.parametrize("line", ["0  ../../etc/passwd", "0  /etc/passwd", "no two spaces"])
def test_a_list_that_leads_elsewhere_is_refused(tmp_path, line):
    (tmp_path / SUMS).write_text(line + "\n")
    with pytest.raises(UserError, match=r"not in the folder|cannot be read"):
        read_sums(tmp_path)


def test_others_may_read_it_where_they_may_read_new_files(tmp_path):
    with whole_folder(tmp_path / "out", overwrite=False) as aside:
        (aside / "part").mkdir()
        save_file({"weight": torch.zeros(1)}, aside / "part" / "weights")
    (tmp_path / "plain").write_text("")
    modes = {path.stat().st_mode for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "plain").stat().st_mode}
