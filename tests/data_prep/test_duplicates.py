import os
from pathlib import Path

from data_prep.duplicates import find_duplicates


def write(folder, **files):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def test_repeats_name_the_first(tmp_path):
    files = write(tmp_path, a=b"xx", b=b"yy", c=b"xx", d=b"x", e=b"yy", f=b"xx")
    assert find_duplicates(files) == {2: 0, 4: 1, 5: 0}


def test_missing_files_repeat_nothing(tmp_path):
    files = write(tmp_path, a=b"xx", b=b"xx")
    assert find_duplicates([tmp_path / "none", files[0], tmp_path / "none", files[1]]) == {3: 1}


def test_files_of_a_size_of_their_own_are_not_read(tmp_path, monkeypatch):
    files = write(tmp_path, a=b"xx", b=b"yyy", c=b"zz")
    opened, original = [], Path.open
    monkeypatch.setattr(Path, "open", lambda self, *rest: (opened.append(self), original(self, *rest))[1])
    assert find_duplicates(files) == {}
    assert opened == [files[0], files[2]]
    assert os.path.getsize(files[1]) == 3
