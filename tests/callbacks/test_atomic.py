"""Files change as a whole, also where a file system cannot be waited for."""

import errno
import os
from pathlib import Path

import pytest

from maskedclip_composer.callbacks.atomic import link_whole, publish, write_whole


def test_a_folder_is_published_and_the_link_moved(tmp_path: Path):
    for name in ("first", "second"):
        (tmp_path / "aside" / name).mkdir(parents=True)
        (tmp_path / "aside" / name / "file").write_text(name)
        publish(tmp_path / "aside" / name, tmp_path / name)
        link_whole(tmp_path / "latest", name)
        assert (tmp_path / "latest" / "file").read_text() == name
    assert {path.name for path in tmp_path.iterdir()} == {"aside", "first", "second", "latest"}


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "folder" / "file"
    write_whole(path, "old")
    seen = []

    def note(descriptor: int) -> None:
        seen.append((os.pread(descriptor, 9, 0), path.read_text()))

    monkeypatch.setattr(os, "fsync", note)
    write_whole(path, "new")
    assert seen == [(b"new", "old")]
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_only_a_file_system_without_synchronisation_is_passed_over(
    number: int, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(descriptor: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "written").write_text("x")
    if passes:
        publish(tmp_path / "written", tmp_path / "name")
    else:
        with pytest.raises(OSError, match="no"):
            publish(tmp_path / "written", tmp_path / "name")
    assert (tmp_path / "name").exists() == passes
