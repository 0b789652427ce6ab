import sqlite3

import pytest

from data_prep.ledger import Ledger, Outcome, Rejected
from data_prep.manifest import Row


def rows(names="abcdefg", splits=("train", "test")):
    return [
        Row(
            number=n,
            image=name,
            split=splits[n % len(splits)],
            texts=(f"text {n % 3}",),
            patient=str(n // 2),
            dataset="d",
        )
        for n, name in enumerate(names)
    ]


def plan(tmp_path, found, options="", **keys):
    keys = {"part_rows": 2, "by_split": True} | keys
    return Ledger.plan(tmp_path / "ledger.sqlite", found, options, **keys)


def finish(ledger, part, reasons=""):
    found = [
        Outcome(status="quarantined" if reason else "stored", reason=reason, sha256=row.image)
        for row, reason in zip(ledger.rows(part), reasons or [""] * part.size, strict=True)
    ]
    ledger.finish(part, found)


def test_parts_hold_the_rows_of_one_folder_in_their_order(tmp_path):
    ledger, earlier = plan(tmp_path, rows())
    assert not earlier
    dealt = [(part.folder, [row.image for row in ledger.rows(part)]) for part in ledger.parts()]
    assert dealt == [
        ("train", ["a", "c"]),
        ("train", ["e", "g"]),
        ("test", ["b", "d"]),
        ("test", ["f"]),
    ]
    assert [part.size for part in ledger.parts()] == [2, 2, 2, 1]
    assert ledger.num_rows() == 7
    ledger, _ = plan(tmp_path, rows(), by_split=False, part_rows=3)
    assert [[row.image for row in ledger.rows(part)] for part in ledger.parts()] == [list("abc"), list("def"), ["g"]]
    assert ledger.rows(ledger.parts()[0]) == rows()[:3]


def test_repeated_images_are_rejected_with_the_row_that_has_them(tmp_path):
    found = [
        *rows("ab"),
        Row(number=9, image="a", split="test"),
        Rejected(number=0, image="x", status="left_out", reason="r"),
    ]
    ledger, _ = plan(tmp_path, found)
    repeated, left_out = ledger.rejected()
    assert (repeated.number, repeated.image, repeated.status) == (9, "a", "quarantined")
    assert repeated.reason == "repeats the image of row 0; join their texts in one cell"
    assert left_out == found[-1]
    assert ledger.num_rows() == 2


def test_finished_parts_stay_for_the_same_plan_only(tmp_path):
    ledger, _ = plan(tmp_path, rows())
    first, second = ledger.parts()[:2]
    finish(ledger, first)
    finish(ledger, second, ["", "broken"])
    ledger.close()
    again, earlier = plan(tmp_path, rows())
    assert earlier
    # A part with a rejected row is done again: the file may have been mended.
    assert [part.number for part in again.parts(open_only=True)] == [p.number for p in again.parts() if p != first]
    assert [outcome.sha256 for _, outcome in again.results(first)] == ["a", "c"]
    again.reopen(first)
    assert first in again.parts(open_only=True)
    finish(again, first)
    again.close()
    for other in ({"found": rows("abcdefh")}, {"options": "size 64"}, {"part_rows": 3}):
        keys = {"found": rows(), "options": ""} | other
        changed, earlier = plan(tmp_path, keys.pop("found"), **keys)
        assert not earlier
        changed.close()


def test_a_damaged_ledger_is_made_anew(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"half a file")
    ledger, earlier = plan(tmp_path, rows())
    assert not earlier
    assert ledger.num_rows() == 7


def test_outcomes_are_all_there_or_none(tmp_path):
    ledger, _ = plan(tmp_path, rows())
    part = ledger.parts()[0]
    with pytest.raises(ValueError, match="shorter"):
        ledger.finish(part, [Outcome()])
    assert part in ledger.parts(open_only=True)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        assert database.execute("SELECT count(*) FROM item WHERE outcome IS NOT NULL").fetchone() == (0,)


def test_identical_files_among_the_stored(tmp_path):
    ledger, _ = plan(tmp_path, rows(), by_split=False, part_rows=10)
    (part,) = ledger.parts()
    found = [
        Outcome(sha256="same" if n in (1, 2, 4) else str(n), status="left_out" if n == 2 else "stored")
        for n in range(7)
    ]
    ledger.finish(part, found)
    assert [[row.image for row in group] for group in ledger.identical()] == [["b", "e"]]
