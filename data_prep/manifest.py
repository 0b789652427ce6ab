"""From a table of images (or a bare folder of them) to checked rows, before any image is opened."""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.folders import path_below, walk_images
from data_prep.tables import Table, cell_text, cell_texts, read_table
from maskedclip_composer.data.schema import Kind
from maskedclip_composer.errors import UserError

COLUMNS = ("image", "text", "label", "patient", "eye", "split", "dataset")
_USUAL_NAMES = ("path", "image_path", "filename", "file", "file_name", "img", "image_id", "id", "image name")
EYES = {"": "", "left": "left", "l": "left", "os": "left", "right": "right", "r": "right", "od": "right"}
_SPLIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from and how their cells are understood.

    Attributes:
        table: A table with the columns of `COLUMNS`, only `image` required; None takes every image below `images`.
        images: Resolved folder that all images lie below.
        kind: `auto` means paired where there are texts, labelled where there is a label, otherwise unpaired.
        separator: Between the texts (or labels) of one cell; None where a cell is one text.
        template: Makes the texts from the labels, `{label}` standing for one.
        label_from_text: Makes every text its own category.
        dataset: Name of the data set for rows that give none.
    """

    table: Path | None
    images: Path
    kind: Kind | str = "auto"
    separator: str | None = None
    template: str | None = None
    label_from_text: bool = False
    dataset: str | None = None

    def __post_init__(self) -> None:
        if self.separator == "":
            raise UserError("--separator is empty; leave it out where a cell holds one text")
        if self.template is not None and "{label}" not in self.template:
            raise UserError(f"--template {self.template!r} has no {{label}}; write 'A fundus photograph of {{label}}'")
        if self.template is not None and self.label_from_text:
            raise UserError("--template makes texts from labels, --label-from-text labels from texts; give one of them")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image to convert.

    Attributes:
        number: Row of the table, as `Table.numbers` counts; position in the sorted list for a bare folder.
        image: Path below the image root.
        texts: What is true of the image.
        labels: The category of each text, empty where it has none; for a labelled row its one class.
        kinds: What each text is.
    """

    number: int
    image: str
    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    patient: str = ""
    eye: str = ""
    split: str = ""
    dataset: str = ""


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A row that is not converted, and why."""

    number: int
    image: str
    reason: str


def read_rows(source: Source) -> tuple[Kind, list[Row], list[Rejected]]:
    """Read and check all rows of `source`.

    Returns:
        The kind of record, the rows to convert in their order, and the rows that repeat an image of an earlier row.

    Raises:
        UserError: The table cannot be read or lacks a column, a cell is empty or malformed, or an image lies outside
            the root.
    """
    if source.table is None:
        return _rows_of_folder(source)
    table = read_table(source.table)
    names = _match_columns(table)
    kind = _kind(source, table, names)
    rows = _build_rows(source, table, names, kind)
    splits = {row.split for row in rows}
    bad = [split for split in sorted(splits) if not _SPLIT.fullmatch(split)]
    if splits != {""} and bad:
        numbers = [row.number for row in rows if row.split in bad]
        raise UserError(
            f"table {table.path}: split {bad[0]!r} in {_some(numbers)} cannot name a folder; "
            "fill the column with names such as train, val and test"
        )
    first: dict[str, int] = {}
    unique, repeated = [], []
    for row in rows:
        if first.setdefault(row.image, row.number) == row.number:
            unique.append(row)
        else:
            reason = f"repeats the image of row {first[row.image]}; join their texts in one cell"
            repeated.append(Rejected(number=row.number, image=row.image, reason=reason))
    return kind, unique, repeated


def _rows_of_folder(source: Source) -> tuple[Kind, list[Row], list[Rejected]]:
    if source.kind not in ("auto", "unpaired"):
        raise UserError(f"--kind {source.kind} needs a table with texts or labels: give it as --csv")
    images = [path_below(source.images, image) for image in walk_images(source.images)]
    if not images:
        raise UserError(f"image root {source.images}: no image lies below it")

    def dataset(image: str) -> str:
        return source.dataset or (image.split("/")[0] if "/" in image else source.images.name)

    rows = [Row(number=n, image=image, dataset=dataset(image)) for n, image in enumerate(images, start=1)]
    return "unpaired", rows, []


def _match_columns(table: Table) -> dict[str, str]:
    """Map our column names to the table's, blind to case."""
    found = {name.lower(): name for name in reversed(table.columns)}
    names = {column: found[column] for column in COLUMNS if column in found}
    if "image" not in names:
        near = difflib.get_close_matches("image", list(found), n=1, cutoff=0.5)
        guess = next((found[name] for name in (*_USUAL_NAMES, *near) if name in found), None)
        remedy = f"rename {guess!r} to 'image'" if guess else "name the column of image paths 'image'"
        raise UserError(f"table {table.path}: has no column image, it has {', '.join(table.columns)}; {remedy}")
    return names


def _kind(source: Source, table: Table, names: dict[str, str]) -> Kind:
    if source.template is not None and "text" in names:
        raise UserError(f"table {table.path}: has a column text already; leave --template out, or drop the column")
    if source.template is not None and "label" not in names:
        raise UserError(f"table {table.path}: --template needs a column label, found {', '.join(table.columns)}")
    has_text = "text" in names or source.template is not None
    kind = source.kind
    if kind == "auto":
        kind = "paired" if has_text else "labelled" if "label" in names else "unpaired"
    if kind == "paired" and not has_text:
        raise UserError(
            f"table {table.path}: paired rows need a column text, found {', '.join(table.columns)}; "
            "add it, or make texts from a column label with --template"
        )
    if kind == "labelled" and "label" not in names:
        raise UserError(f"table {table.path}: labelled rows need a column label, found {', '.join(table.columns)}")
    if kind != "paired" and (source.template is not None or source.label_from_text):
        option = "--template" if source.template is not None else "--label-from-text"
        raise UserError(f"{option} is for paired rows, these are {kind}; leave it out, or give --kind paired")
    assert kind in ("paired", "unpaired", "labelled")
    return kind


def _build_rows(source: Source, table: Table, names: dict[str, str], kind: Kind) -> list[Row]:
    rows, nameless, textless, unlabelled = [], [], [], []
    dataset = source.dataset or source.images.name
    for number, cells in zip(table.numbers, table.rows, strict=True):
        get = _getter(cells, names)
        image = cell_text(get("image"))
        labels = cell_texts(get("label"), source.separator if kind == "paired" else None)
        texts = _texts(source, get("text"), labels) if kind == "paired" else []
        if not image:
            nameless.append(number)
            continue
        if kind == "paired" and not texts:
            textless.append(number)
            continue
        if kind == "labelled" and len(labels) != 1:
            unlabelled.append(number)
            continue
        where = f"table {table.path}: row {number}"
        eye = cell_text(get("eye")).lower()
        if eye not in EYES:
            raise UserError(f"{where} has eye {eye!r}; write left or right (OS and OD are understood), or nothing")
        try:
            path = path_below(source.images, image)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        paired = _pair(source, where, texts, labels) if kind == "paired" else {}
        rows.append(
            Row(
                number=number,
                image=path,
                texts=tuple(text for text, _ in paired),
                labels=tuple(label for _, label in paired) if kind == "paired" else tuple(labels[:1]),
                patient=cell_text(get("patient")),
                eye=EYES[eye],
                split=cell_text(get("split")),
                dataset=cell_text(get("dataset")) or dataset,
            )
        )
    _refuse(table, nameless, "name no image", "fill the column image, or take the rows out")
    _refuse(table, textless, "have no text", "take the rows out, and convert their images with --kind unpaired")
    _refuse(table, unlabelled, "have not exactly one label", "fill the column label, or take the rows out")
    return rows


def _getter(cells: dict[str, Any], names: dict[str, str]) -> Callable[[str], Any]:
    return lambda column: cells.get(names[column]) if column in names else None


def _texts(source: Source, cell: Any, labels: list[str]) -> list[str]:
    if source.template is not None:
        return [source.template.replace("{label}", label) for label in labels]
    return cell_texts(cell, source.separator)


def _pair(source: Source, where: str, texts: list[str], labels: list[str]) -> dict[tuple[str, str], None]:
    """Give every text its category; a pair that is named twice stays once."""
    if source.label_from_text:
        # Equal categories make positives, so spelling must not tell two of them apart.
        labels = [text.casefold() for text in texts]
    elif not labels:
        labels = [""] * len(texts)
    elif len(labels) == 1:
        labels *= len(texts)
    elif len(labels) != len(texts):
        raise UserError(
            f"{where} has {len(texts)} texts but {len(labels)} labels; give one label, or one for each text"
        )
    return dict.fromkeys(zip(texts, labels, strict=True))


def _refuse(table: Table, numbers: list[int], what: str, remedy: str) -> None:
    if numbers:
        raise UserError(f"table {table.path}: {_some(numbers)} {what}; {remedy}")


def _some(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
    return f"{len(numbers)} rows ({shown})" if len(numbers) > 1 else f"1 row ({shown})"
