import csv
import errno
import io
import os
import struct
import time
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep import parts
from data_prep.ledger import Ledger
from data_prep.photograph import Photograph, prepare
from maskedclip_composer.data.photograph import Recipe
from tests.data_prep.drawing import retina, run, samples, save_retinas, write_csv


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


UNUSABLE = {
    "bomb.png": (lambda path: path.write_bytes(bomb()), "more than"),
    "fifo.jpg": (os.mkfifo, "not a regular file"),
    "folder.jpg": (os.mkdir, "not a regular file"),
    "device.jpg": (lambda path: path.symlink_to(path.parent / "fifo.jpg"), "not a regular file"),
    "dead.jpg": (lambda path: path.symlink_to(path.parent / "gone.jpg"), "no such file"),
    "pickle.jpg": (lambda path: path.write_bytes(b"cos\nsystem\n(S'touch owned'\ntR."), "not an image"),
    "=cmd|'c'!A1.jpg": (lambda path: path.write_bytes(b""), "empty file"),
}


def test_bad_files_are_listed_and_good_ones_stored(tmp_path):
    root = tmp_path / "images"
    names = save_retinas(root, 3)
    for name, (make, _) in UNUSABLE.items():
        make(root / name)
    (root / "two\nlines.jpg").write_bytes((root / "0.jpg").read_bytes() + b"\n")
    # Animated files give their first picture, CMYK and progressive ones are encoded again.
    pictures = [retina(radius=radius) for radius in (40, 30)]
    pictures[0].save(root / "moves.webp", save_all=True, append_images=pictures[1:], lossless=True)
    pictures[0].convert("CMYK").save(root / "cmyk.jpg")
    table = write_csv(
        tmp_path / "t.csv",
        [{"image": name, "text": "=1+1"} for name in (*names, "moves.webp", "cmyk.jpg", *UNUSABLE)],
        encoding="utf-8-sig",
    )
    start = time.monotonic()
    arguments = ("--csv", table, "--images", root, "--out", tmp_path / "out", "--max-bad", "1", "--workers", "1")
    assert run("manifest", *arguments) == 0
    assert time.monotonic() - start < 20
    found = samples(tmp_path / "out")
    assert [sample["source"] for sample in found] == [*names, "moves.webp", "cmyk.jpg"]
    assert {text for sample in found for text in sample["texts"]} == {"=1+1"}
    with (tmp_path / "out" / "quarantine.csv").open(newline="") as file:
        listed = {row["image"]: row["reason"] for row in csv.DictReader(file)}
    assert set(listed) == {f"'{name}" if name.startswith("=") else name for name in UNUSABLE}
    for name, reason in listed.items():
        assert UNUSABLE[name.removeprefix("'")][1] in reason


def test_names_of_a_bare_folder(tmp_path):
    root = tmp_path / "images"
    save_retinas(root, 1)
    data = (root / "0.jpg").read_bytes()
    (root / "two\nlines.jpg").write_bytes(data)
    with open(os.fsencode(root) + b"/\xff\xe4.jpg", "wb") as file:
        file.write(data)
    assert run("manifest", "--images", root, "--out", tmp_path / "out", "--max-bad", "1", "--workers", "1") == 0
    assert [sample["source"] for sample in samples(tmp_path / "out")] == ["0.jpg", "two\nlines.jpg"]
    assert "not UTF-8; rename the file" in (tmp_path / "out" / "quarantine.csv").read_text()


def test_a_nul_byte_in_a_cell(tmp_path, capsys):
    save_retinas(tmp_path / "images", 1)
    (tmp_path / "t.jsonl").write_text('{"image": "0\\u0000.jpg"}\n')
    assert run("manifest", "--csv", tmp_path / "t.jsonl", "--images", tmp_path / "images", "--out", tmp_path / "o") == 2
    assert "holds a NUL byte" in capsys.readouterr().err


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["shards", "ledger"])
def test_a_full_disk_keeps_what_is_done(tmp_path, monkeypatch, capsys, where):
    save_retinas(tmp_path / "images", 4)
    arguments = ("manifest", "--images", tmp_path / "images", "--out", tmp_path / "out", "--part", "2")
    with monkeypatch.context() as patch:
        if where == "shards":
            patch.setattr(parts, "_sample", full)
        else:
            patch.setattr(Ledger, "finish", full)
        assert run(*arguments, "--workers", "1") == 2
    assert "no space is left" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(*arguments, "--workers", "1") == 0
    assert len(samples(tmp_path / "out")) == 4


def test_a_place_that_cannot_be_written(tmp_path, capsys):
    save_retinas(tmp_path / "images", 1)
    (tmp_path / "file").write_bytes(b"")
    assert run("manifest", "--images", tmp_path / "images", "--out", tmp_path / "file" / "out") == 2
    assert "cannot be written: Not a directory" in capsys.readouterr().err


def encoded(name, **options):
    buffer = io.BytesIO()
    retina(64, 48, radius=20).save(buffer, name, **options)
    return buffer.getvalue()


WHOLE = [encoded("JPEG"), encoded("JPEG", progressive=True), encoded("PNG")]


@st.composite
def damaged(draw):
    data = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=damaged() | st.binary(max_size=300), crop=st.booleans())
def test_no_bytes_end_a_run(tmp_path, data, crop):
    file = tmp_path / "a.jpg"
    file.write_bytes(data)
    result = prepare(str(file), Recipe(size=32, crop=crop))
    assert isinstance(result, Photograph) or (isinstance(result, str) and result)
