"""From a table of images (or a bare folder of them) to checked rows, before any image is opened."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from data_prep.readers.texts import canonical
from data_prep.readers.vocabulary import NORMAL
from data_prep.remote import key_below, list_images
from maskedclip_composer.data.cells import cell_text, cell_texts, unusable
from maskedclip_composer.data.folders import path_below, walk_images
from maskedclip_composer.data.records import BETWEEN
from maskedclip_composer.data.schema import EVALUATION_KINDS, Kind, TextKind
from maskedclip_composer.data.tables import TableStream, stream_table
from maskedclip_composer.errors import UserError

COLUMNS = ("image", "text", "text_kind", "label", "patient", "eye", "visit", "split", "dataset", "licence")
_USUAL_NAMES = ("path", "image_path", "filename", "file", "file_name", "img", "image_id", "id", "image name")
EYES = {"": "", "left": "left", "l": "left", "os": "left", "right": "right", "r": "right", "od": "right"}
_SPLIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
# Names of files beside the folders of the splits, or in them.
_TAKEN = re.compile(r"(?i)index\.json|shard\..*|manifest\.parquet|report\.json|.*\.(csv|md|jpg)")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from and how their cells are understood.

    Attributes:
        table: A table with the columns of `COLUMNS`, only `image` required; None takes every image below `images`.
        images: Resolved folder, or URL of an object store, that all images lie below.
        kind: `auto` means paired where there are texts, labelled where there is a label, otherwise unpaired; it never
            means multilabel, where the column `label` holds every label that is true.
        separator: Between the texts (or labels) of one cell; None where a cell is one text.
        template: Makes the texts from the labels, `{label}` standing for one.
        label_from_text: Makes every text its own category.
        text_from_label: Makes every label a text of kind `category`, to be worded when training.
        dataset: Name of the data set for rows that give none.
        licence: Terms of the photographs for rows that give none.
    """

    table: Path | None
    images: Path | str
    kind: Kind | str = "auto"
    separator: str | None = None
    template: str | None = None
    label_from_text: bool = False
    text_from_label: bool = False
    dataset: str | None = None
    licence: str = ""

    @property
    def name(self) -> str:
        """Last part of the image root: the data set's name where none is given."""
        return Path(self.images).name

    def __post_init__(self) -> None:
        if self.separator == "":
            raise UserError("--separator is empty; leave it out where a cell holds one text")
        if self.template is not None and "{label}" not in self.template:
            raise UserError(f"--template {self.template!r} has no {{label}}; write 'A fundus photograph of {{label}}'")
        if (self.template is not None) + self.label_from_text + self.text_from_label > 1:
            raise UserError(
                "--template and --text-from-label make texts from labels, --label-from-text labels from texts; "
                "give one of them"
            )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image to convert.

    Attributes:
        number: Row of the table, as `Table.numbers` counts; position in the sorted list for a bare folder.
        image: Path below the image root.
        texts: What is true of the image.
        labels: The category of each text, empty where it has none; for a labelled row its one class, for a
            multilabel row every label that is true, sorted.
        kinds: What each text is: `schema.TextKind`.
        label_name: Category of the one class, where `labels` holds a published code; of several labels theirs, with
            `|` between them.
    """

    number: int
    image: str
    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    label_name: str = ""
    patient: str = ""
    eye: str = ""
    visit: str = ""
    split: str = ""
    dataset: str = ""
    licence: str = ""


def read_rows(source: Source) -> tuple[Kind, Iterator[Row]]:
    """Read and check the rows of `source` one by one.

    Returns:
        The kind of record, and the rows in their order. Nothing may be done with a row before all are read: what is
        wrong with rows is said in the end, of all of them at once.

    Raises:
        UserError: The table cannot be read or lacks a column, a cell is empty or malformed, or an image lies outside
            the root.
    """
    if source.table is None:
        return "unpaired", _rows_of_folder(source)
    table = stream_table(source.table)
    names = _match_columns(table)
    kind = _kind(source, table, names)
    return kind, _checked_rows(source, table, names, kind)


def _rows_of_folder(source: Source) -> Iterator[Row]:
    if source.kind not in ("auto", "unpaired"):
        raise UserError(f"--kind {source.kind} needs a table with texts or labels: give it as --csv")
    number = 0
    for number, found in enumerate(_images(source.images), start=1):
        image = _below(source.images, found)
        dataset = source.dataset or (image.split("/")[0] if "/" in image else source.name)
        yield Row(number=number, image=image, dataset=dataset, licence=source.licence)
    if number == 0:
        raise UserError(f"image root {source.images}: no image lies below it")


def _images(root: Path | str) -> Iterator[str]:
    return list_images(root) if isinstance(root, str) else walk_images(root)


def _below(root: Path | str, image: str) -> str:
    return key_below(root, image) if isinstance(root, str) else path_below(root, image)


def _match_columns(table: TableStream) -> dict[str, str]:
    """Map our column names to the table's, blind to case."""
    found: dict[str, str] = {}
    for name in table.columns:
        if found.setdefault(name.lower(), name) != name and name.lower() in COLUMNS:
            raise UserError(f"table {table.path}: has {found[name.lower()]!r} and {name!r}; rename one of the columns")
    names = {column: found[column] for column in COLUMNS if column in found}
    if "image" not in names:
        near = difflib.get_close_matches("image", list(found), n=1, cutoff=0.5)
        guess = next((found[name] for name in (*_USUAL_NAMES, *near) if name in found), None)
        remedy = f"rename {guess!r} to 'image'" if guess else "name the column of image paths 'image'"
        raise UserError(f"table {table.path}: has no column image, it has {', '.join(table.columns)}; {remedy}")
    return names


def _kind(source: Source, table: TableStream, names: dict[str, str]) -> Kind:
    maker = "--template" if source.template is not None else "--text-from-label" if source.text_from_label else ""
    if maker and "text" in names:
        raise UserError(f"table {table.path}: has a column text already; leave {maker} out, or drop the column")
    if maker and "label" not in names:
        raise UserError(f"table {table.path}: {maker} needs a column label, found {', '.join(table.columns)}")
    has_text = "text" in names or bool(maker)
    kind = source.kind
    if kind == "auto":
        kind = "paired" if has_text else "labelled" if "label" in names else "unpaired"
    if kind == "paired" and not has_text:
        raise UserError(
            f"table {table.path}: paired rows need a column text, found {', '.join(table.columns)}; "
            "add it, or make texts from a column label with --template or --text-from-label"
        )
    if kind in EVALUATION_KINDS and "label" not in names:
        raise UserError(f"table {table.path}: {kind} rows need a column label, found {', '.join(table.columns)}")
    option = maker or ("--label-from-text" if source.label_from_text else "")
    if kind != "paired" and option:
        raise UserError(f"{option} is for paired rows, these are {kind}; leave it out, or give --kind paired")
    assert kind in ("paired", "unpaired", "labelled", "multilabel")
    return kind


class _Complaint:
    """Rows with one fault: how many, and the first of them."""

    def __init__(self, what: str, remedy: str) -> None:
        self._what, self._remedy = what, remedy
        self._count, self._first = 0, []

    def add(self, number: int) -> None:
        self._count += 1
        if len(self._first) < 10:
            self._first.append(str(number))

    def settle(self, table: TableStream) -> None:
        if self._count:
            shown = ", ".join(self._first) + (", ..." if self._count > 10 else "")
            rows = f"{self._count} rows" if self._count > 1 else "1 row"
            raise UserError(f"table {table.path}: {rows} ({shown}) {self._what}; {self._remedy}")


def _checked_rows(source: Source, table: TableStream, names: dict[str, str], kind: Kind) -> Iterator[Row]:
    nameless = _Complaint("name no image", "fill the column image, or take the rows out")
    textless = _Complaint("have no text", "take the rows out, and convert their images with --kind unpaired")
    unlabelled = _Complaint("have not exactly one label", "fill the column label, or take the rows out")
    several = _Complaint(
        f"have {BETWEEN!r} in a label",
        f"give --kind multilabel --separator {BETWEEN!r} for several labels, or rename it",
    )
    none_true = _Complaint(
        "have no label, though the set has one for normal", "fill the column label, or take them out"
    )
    has_normal = False
    # A table without splits has the split '' only, which is no folder.
    misnamed: dict[str, _Complaint] = {}
    splits: set[str] = set()
    for number, cells in table.rows:
        row = {column: cells.get(name) for column, name in names.items()}
        if bad := next((f"{names[column]!r} {why}" for column in row if (why := unusable(column, row[column]))), ""):
            raise UserError(f"table {table.path}: row {number}: column {bad}")
        labels = cell_texts(row.get("label"), source.separator if kind in ("paired", "multilabel") else None)
        texts = _texts(source, row.get("text"), labels) if kind == "paired" else []
        if not cell_text(row.get("image")):
            nameless.add(number)
        elif kind == "paired" and not texts:
            textless.add(number)
        elif kind == "labelled" and len(labels) != 1:
            unlabelled.add(number)
        elif kind in EVALUATION_KINDS and any(BETWEEN in label for label in labels):
            several.add(number)
        else:
            if kind == "multilabel" and not labels:
                none_true.add(number)
            has_normal = has_normal or (kind == "multilabel" and NORMAL in map(canonical, labels))
            split = cell_text(row.get("split"))
            splits.add(split)
            if not _SPLIT.fullmatch(split) or _TAKEN.fullmatch(split):
                remedy = "fill the column with names such as train, val and test"
                complaint = _Complaint(f"have split {split!r}, which cannot name a folder", remedy)
                misnamed.setdefault(split, complaint).add(number)
            yield _row(source, f"table {table.path}: row {number}", number, kind, row, texts, labels)
    for complaint in (
        *(nameless, textless, unlabelled, several),
        *([none_true] if has_normal else []),
        *(misnamed.values() if splits != {""} else ()),
    ):
        complaint.settle(table)


def _row(
    source: Source, where: str, number: int, kind: Kind, row: Mapping[str, Any], texts: list[str], labels: list[str]
) -> Row:
    eye = cell_text(row.get("eye")).lower()
    if eye not in EYES:
        raise UserError(f"{where} has eye {eye!r}; write left or right (OS and OD are understood), or nothing")
    try:
        image = _below(source.images, cell_text(row.get("image")))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    paired = _pair(source, where, row, texts, labels) if kind == "paired" else {}
    return Row(
        number=number,
        image=image,
        texts=tuple(text for text, _, _ in paired),
        labels=tuple(label for _, label, _ in paired) if kind == "paired" else _labels(kind, labels),
        kinds=tuple(text_kind for _, _, text_kind in paired),
        patient=cell_text(row.get("patient")),
        eye=EYES[eye],
        visit=cell_text(row.get("visit")),
        split=cell_text(row.get("split")),
        dataset=cell_text(row.get("dataset")) or source.dataset or source.name,
        licence=cell_text(row.get("licence")) or source.licence,
    )


def _labels(kind: Kind, labels: list[str]) -> tuple[str, ...]:
    return tuple(sorted(set(labels))) if kind == "multilabel" else tuple(labels[:1])


def _texts(source: Source, cell: Any, labels: list[str]) -> list[str]:
    if source.template is not None:
        return [source.template.replace("{label}", label) for label in labels]
    if source.text_from_label:
        return labels
    return cell_texts(cell, source.separator)


def _pair(
    source: Source, where: str, row: Mapping[str, Any], texts: list[str], labels: list[str]
) -> dict[tuple[str, str, str], None]:
    """Give every text its category and kind; one that is named twice stays once."""
    # Equal categories make positives, so spelling must not tell two of them apart.
    by_name = source.label_from_text or source.text_from_label
    labels = [canonical(text) for text in texts] if by_name else labels
    default = "category" if source.text_from_label else "sentence"
    kinds = cell_texts(row.get("text_kind"), source.separator) or [default]
    unknown = next((kind for kind in kinds if kind not in get_args(TextKind)), None)
    if unknown is not None:
        raise UserError(f"{where} has text_kind {unknown!r}; write {', '.join(get_args(TextKind))}, or nothing")
    for what, cells in (("labels", labels or [""]), ("text kinds", kinds)):
        if len(cells) not in (1, len(texts)):
            raise UserError(f"{where} has {len(texts)} texts but {len(cells)} {what}; give one, or one for each text")
    each = [cells * len(texts) if len(cells) == 1 else cells for cells in (labels or [""], kinds)]
    return dict.fromkeys(zip(texts, *each, strict=True))
