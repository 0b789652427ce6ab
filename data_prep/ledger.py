"""The rows of a conversion and what became of them, on disk: memory does not grow with their number."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.manifest import Row
from maskedclip_composer.data.records import QUARANTINED, STORED

_TABLES = """
CREATE TABLE part (number INTEGER PRIMARY KEY, folder TEXT NOT NULL, size INTEGER NOT NULL, done INTEGER NOT NULL);
CREATE TABLE item (
    id INTEGER PRIMARY KEY, image TEXT NOT NULL UNIQUE, part INTEGER NOT NULL, row TEXT NOT NULL,
    status TEXT, outcome TEXT  -- NULL until the part is finished
);
CREATE INDEX item_part ON item (part, id);
CREATE TABLE rejected (number INTEGER NOT NULL, image TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE plan (fingerprint TEXT NOT NULL);
"""


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A row that is not converted, with the status of `records.py` and why."""

    number: int
    image: str
    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one row. Fields as in `records.SCHEMA`."""

    status: str = STORED
    reason: str = ""
    sha256: str = ""
    phash: str = ""  # hexadecimal
    original_width: int = 0
    original_height: int = 0
    width: int = 0
    height: int = 0
    crop_status: str = ""
    crop_box: tuple[int, int, int, int] | None = None
    bytes: int = 0
    verbatim: bool = False
    sharpness: float = 0.0
    brightness: float = 0.0
    clipped: float = 0.0
    field: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """A run of rows of one folder that is converted at a time: the unit of resuming."""

    number: int
    folder: str
    size: int

    @property
    def name(self) -> str:
        """Name of its folder while the work is not finished."""
        return f"{self.number:05}"


class Ledger:
    """One SQLite file. A part is finished when its outcomes are in it, all in one transaction."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._database = sqlite3.connect(file, isolation_level=None)
        self._database.execute("PRAGMA cache_size = -65536")  # 64 MiB, whatever the number of rows

    @classmethod
    def plan(
        cls, file: Path, rows: Iterable[Row | Rejected], options: str, *, part_rows: int, by_split: bool
    ) -> tuple["Ledger", bool]:
        """Write down all rows; keep an earlier ledger of the same rows and options with what it has finished.

        Rows are dealt into parts of `part_rows` in their order, each split into parts of its own where `by_split`. A
        row whose image an earlier one has is rejected.

        Returns:
            The ledger, and whether it is an earlier one.
        """
        aside = file.with_suffix(".new")
        aside.unlink(missing_ok=True)
        ledger = cls(aside)
        try:
            ledger._write(rows, options, part_rows, by_split)
        finally:
            ledger.close()
        fingerprint = cls._fingerprint_of(aside)
        earlier = cls(file) if cls._fingerprint_of(file) == fingerprint else None
        if earlier is not None:
            aside.unlink()
            return earlier, True
        os.replace(aside, file)
        return cls(file), False

    def _write(self, rows: Iterable[Row | Rejected], options: str, part_rows: int, by_split: bool) -> None:
        database = self._database
        database.executescript(_TABLES)
        digest = hashlib.sha256(json.dumps([options, part_rows, by_split]).encode())
        open_part: dict[str, list[int]] = {}  # folder -> number and size of the part that is being filled
        num_parts = 0
        database.execute("BEGIN")
        for row in rows:
            text = json.dumps(asdict(row))
            digest.update(text.encode())
            if isinstance(row, Rejected):
                self._reject(row)
                continue
            name = row.image.encode("utf-8", "backslashreplace").decode()
            if name != row.image:
                reason = "its name holds bytes that are not UTF-8; rename the file"
                self._reject(Rejected(number=row.number, image=name, status="quarantined", reason=reason))
                continue
            folder = row.split if by_split else ""
            number, size = open_part.get(folder, (0, part_rows))
            if size == part_rows:
                number, size = num_parts, 0
            added = database.execute(
                "INSERT OR IGNORE INTO item (image, part, row) VALUES (?, ?, ?)", (row.image, number, text)
            )
            if not added.rowcount:
                first = json.loads(self._value("SELECT row FROM item WHERE image = ?", row.image))["number"]
                reason = f"repeats the image of row {first}; join their texts in one cell"
                self._reject(Rejected(number=row.number, image=row.image, status=QUARANTINED, reason=reason))
                continue
            if size == 0:
                num_parts += 1
                database.execute("INSERT INTO part VALUES (?, ?, 0, 0)", (number, folder))
            open_part[folder] = [number, size + 1]
            database.execute("UPDATE part SET size = size + 1 WHERE number = ?", (number,))
        database.execute("INSERT INTO plan VALUES (?)", (digest.hexdigest(),))
        database.execute("COMMIT")

    def _reject(self, row: Rejected) -> None:
        values = (row.number, row.image, row.status, row.reason)
        self._database.execute("INSERT INTO rejected VALUES (?, ?, ?, ?)", values)

    @staticmethod
    def _fingerprint_of(file: Path) -> str | None:
        """Return the fingerprint of a ledger, None where there is none, of another version, or damaged."""
        if not file.is_file():
            return None
        try:
            ledger = Ledger(file)
            found = ledger._value("SELECT fingerprint FROM plan")
            ledger.close()
        except sqlite3.DatabaseError:
            return None
        return found

    def _value(self, query: str, *values: object) -> str:
        return self._database.execute(query, values).fetchone()[0]

    def num_rows(self) -> int:
        """Count the rows to convert."""
        return int(self._value("SELECT count(*) FROM item"))

    def identical(self) -> Iterator[list[Row]]:
        """Yield groups of rows whose files are byte-identical, in the order of their first rows."""
        groups = self._database.execute(
            "SELECT group_concat(id) FROM item WHERE status = 'stored' GROUP BY json_extract(outcome, '$.sha256') "
            "HAVING count(*) > 1 ORDER BY min(id)"
        )
        for (ids,) in groups:
            keys = sorted(map(int, ids.split(",")))
            yield [row_from_json(self._value("SELECT row FROM item WHERE id = ?", key)) for key in keys]

    def parts(self, *, open_only: bool = False) -> list[Part]:
        """Return the parts folder by folder, as their rows came; with `open_only` those that are to be done.

        A finished part with quarantined rows is to be done again: the user may have mended the files.
        """
        found = self._database.execute(
            "SELECT number, folder, size FROM part "
            "WHERE NOT ? OR NOT done OR EXISTS (SELECT 1 FROM item WHERE part = number AND status = 'quarantined') "
            "ORDER BY (SELECT min(number) FROM part other WHERE other.folder = part.folder), number",
            (open_only,),
        )
        return [Part(number=number, folder=folder, size=size) for number, folder, size in found]

    def rows(self, part: Part) -> list[Row]:
        """Return the rows of a part in their order."""
        found = self._database.execute("SELECT row FROM item WHERE part = ? ORDER BY id", (part.number,))
        return [row_from_json(text) for (text,) in found]

    def finish(self, part: Part, outcomes: list[Outcome]) -> None:
        """Note what became of each row of a part."""
        ids = [
            key for (key,) in self._database.execute("SELECT id FROM item WHERE part = ? ORDER BY id", (part.number,))
        ]
        values = [(out.status, json.dumps(asdict(out)), key) for key, out in zip(ids, outcomes, strict=True)]
        self._database.execute("BEGIN")
        self._database.executemany("UPDATE item SET status = ?, outcome = ? WHERE id = ?", values)
        self._database.execute("UPDATE part SET done = 1 WHERE number = ?", (part.number,))
        self._database.execute("COMMIT")

    def reopen(self, part: Part) -> None:
        """Forget that a part is finished, before its shards are written again."""
        self._database.execute("UPDATE part SET done = 0 WHERE number = ?", (part.number,))

    def results(self, part: Part) -> list[tuple[Row, Outcome]]:
        """Return the rows of a finished part with what became of them."""
        found = self._database.execute("SELECT row, outcome FROM item WHERE part = ? ORDER BY id", (part.number,))
        return [(row_from_json(row), outcome_from_json(outcome)) for row, outcome in found]

    def rejected(self) -> Iterator[Rejected]:
        """Yield the rows that were rejected before any photograph was opened."""
        for number, image, status, reason in self._database.execute("SELECT * FROM rejected ORDER BY rowid"):
            yield Rejected(number=number, image=image, status=status, reason=reason)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def row_from_json(text: str) -> Row:
    """Read back a row that was written as JSON."""
    fields: dict[str, Any] = json.loads(text)
    for name, value in fields.items():
        fields[name] = tuple(value) if isinstance(value, list) else value
    return Row(**fields)


def outcome_from_json(text: str) -> Outcome:
    """Read back an outcome that was written as JSON."""
    fields: dict[str, Any] = json.loads(text)
    return Outcome(**fields | {"crop_box": fields["crop_box"] and tuple(fields["crop_box"])})
