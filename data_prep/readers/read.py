"""Read a data set below its root as its description says: the join of photographs, sheets and names, done once."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from data_prep.manifest import EYES, Row
from data_prep.readers.dataset import Dataset, Entry, Part, Target
from data_prep.readers.layout import layout, missing
from data_prep.readers.sheets import corrected_labels, entries_of, has_column, partners, stem
from data_prep.readers.target import choose_target, judge, published_codes
from data_prep.readers.texts import Text, class_name
from data_prep.readers.tree import Lookup, Tree
from maskedclip_composer.data.folders import path_below
from maskedclip_composer.data.records import split_labels
from maskedclip_composer.data.schema import Kind
from maskedclip_composer.data.tables import read_table
from maskedclip_composer.errors import UserError

NOT_ON_DISK = "is not on disk"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a data set holds.

    Attributes:
        kind: Of its rows.
        rows: Photographs in the order of the sheets; `number` is the row of the sheet, or the place in the folder.
        codes: For each row the published code of its label, empty where it has none; several as `join_labels` writes.
        left_out: (photograph or sheet entry, reason) of what did not become a row.
        notes: Other things to know, one line each.
    """

    kind: Kind
    rows: list[Row]
    codes: list[str]
    left_out: list[tuple[str, str]]
    notes: list[str]

    @property
    def labels(self) -> list[tuple[str, ...]]:
        """For each row the codes that are true of it."""
        if self.kind == "multilabel":
            return [split_labels(code) for code in self.codes]
        return [(code,) for code in self.codes]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A photograph with what is known of it."""

    number: int
    image: str
    entry: Entry


def read(dataset: Dataset, root: Path, target: str | None = None, kind: Kind | None = None) -> Reading:
    """Read `dataset` below the resolved folder `root`.

    Args:
        dataset: What it is.
        root: Where it is.
        target: Which of its labellings; None takes the first that fits the kind.
        kind: Records to make; None takes the data set's own.

    Raises:
        UserError: A folder, sheet or column is missing, nothing fits, or the data set has no such target or kind.
    """
    kind = kind or dataset.kind
    labelling = choose_target(dataset, target, kind)
    tree = Tree(root)
    absent = missing(dataset, tree)
    if absent:
        top = ", ".join(sorted({PurePosixPath(path).parts[0] for path in [*tree.folders[1:], *tree.files]})[:10])
        links = f"\nlinks to folders are not followed: {', '.join(tree.linked)}" if tree.linked else ""
        raise UserError(
            f"--root {root}: {dataset.title} lacks {'; '.join(absent)}\nfound there: {top or 'nothing'}{links}\n"
            f"get it from {dataset.source}\nexpected layout:\n{layout(dataset)}"
        )
    left_out: list[tuple[str, str]] = []
    notes: list[str] = []
    found: list[_Found] = []
    for part in dataset.parts:
        found += _read_part(part, tree, labelling, kind, left_out, notes)
    rows, codes = _rows(dataset, found, labelling, kind, root, left_out)
    if not rows:
        reasons = "; ".join(f"{n} {reason}" for reason, n in Counter(reason for _, reason in left_out).most_common(4))
        raise UserError(
            f"--root {root}: no photograph is left of {dataset.title}{f' ({reasons})' if reasons else ''}\n"
            f"get it from {dataset.source}\nexpected layout:\n{layout(dataset)}"
        )
    gone = [image for image, reason in left_out if reason == NOT_ON_DISK]
    if gone:
        notes.append(f"missing: {len(gone)} photographs, the first is {gone[0]}; the set is at {dataset.source}")
    notes += _unexpected_counts(dataset, labelling, len(found), codes)
    return Reading(kind=kind, rows=rows, codes=codes, left_out=left_out, notes=notes)


def _read_part(
    part: Part, tree: Tree, target: Target | None, kind: Kind, left_out: list[tuple[str, str]], notes: list[str]
) -> list[_Found]:
    folder = tree.folder(part.images)
    if folder is None:
        return []
    photographs = tree.photographs(folder, part.ignore)
    choice = next(((sheet, path) for sheet in part.sheets if (path := tree.file(sheet.paths))), None)
    if choice is None and part.sheets and not part.sheet_optional:
        return []
    if choice is None:
        return _walk(part, photographs, {}, left_out)
    sheet, path = choice
    table = read_table(tree.root / path, sheet.form)
    notes += [f"sheet {path}: column {name!r} read without its white space" for name in table.respelled]
    if part.sheet_optional and target and not has_column(table, target.columns):
        notes.append(f"sheet {path}: has no labels ({' or '.join(target.columns)})")
        target = None
    entries = entries_of(sheet, target, table)
    if sheet.key:
        return _walk(part, photographs, {entry.image.casefold(): entry for _, entry in entries}, left_out)
    corrected = corrected_labels(part, tree, sheet, target)
    pairs = partners(part, tree)
    lookup = Lookup(photographs)
    found, named = [], set()
    for number, entry in entries:
        candidates = lookup.find(entry.image) if entry.image else []
        if len(candidates) != 1:
            several = f"is ambiguous: {', '.join(candidates[:3])}"
            reason = several if candidates else NOT_ON_DISK if entry.image else "has no image name"
            left_out.append((entry.image or f"{path} row {number}", reason))
            continue
        named.add(candidates[0])
        name = stem(entry.image)
        known = replace(entry, label=corrected.get(name, entry.label))
        if name in pairs:
            patient, eye = pairs[name]
            known = replace(known, patient=patient, eye=eye)
        known = _with_name(part, candidates[0], known)
        found.append(_Found(number=number, image=photographs[candidates[0]], entry=known))
    rest = {below: image for below, image in photographs.items() if below not in named}
    if rest and kind == "unpaired":
        found += _walk(part, rest, {}, left_out)
    elif rest:
        notes.append(f"sheet {path}: does not name {len(rest)} photographs of {folder}, such as {next(iter(rest))}")
    return found


def _walk(
    part: Part, photographs: dict[str, str], by_key: Mapping[str, Entry], left_out: list[tuple[str, str]]
) -> list[_Found]:
    """Take the photographs on disk, with what their names and the sheet by key say."""
    found = []
    for number, (below, image) in enumerate(photographs.items(), start=1):
        match = _match(part, below)
        if match is None:
            left_out.append((image, f"does not fit the names of the set ({part.example})"))
            continue
        of_key = by_key.get(match.get("key", "").casefold(), Entry(image=image))
        found.append(_Found(number=number, image=image, entry=_with_name(part, below, of_key)))
    return found


def _match(part: Part, below: str) -> dict[str, str] | None:
    match = re.search(part.pattern, below, re.IGNORECASE)
    return match and {name: value or "" for name, value in match.groupdict().items()}


def _with_name(part: Part, below: str, entry: Entry) -> Entry:
    """Add what the photograph's own name says where the sheet says nothing."""
    groups = _match(part, below) or {}
    return replace(
        entry,
        label=entry.label or groups.get("label", ""),
        patient=entry.patient or groups.get("patient", ""),
        eye=entry.eye or groups.get("eye", ""),
        split=entry.split or groups.get("split", "").lower() or part.split,
    )


def _rows(
    dataset: Dataset,
    found: list[_Found],
    target: Target | None,
    kind: Kind,
    root: Path,
    left_out: list[tuple[str, str]],
) -> tuple[list[Row], list[str]]:
    rows, codes = [], []
    first: dict[str, _Found] = {}
    published = published_codes(target)
    for item in found:
        entry = item.entry
        code, category, reason = judge(entry, target, published, kind)
        eye = EYES.get(entry.eye.lower())
        texts = entry.texts or ((class_name(category),) if category else ())
        earlier = first.get(item.image)
        if earlier is not None:
            same = (earlier.entry.label, earlier.entry.labels) == (entry.label, entry.labels)
            other = "" if same else " with another label"
            reason = f"repeats the photograph of row {earlier.number}{other}"
        elif not reason and eye is None:
            reason = f"eye {entry.eye!r} is neither left nor right"
        elif not reason and kind == "paired" and not texts:
            reason = "has no text"
        try:
            image = path_below(root, item.image)
        except UserError:
            reason, image = "is a link that leads out of the root", item.image
        first.setdefault(item.image, item)
        if reason:
            left_out.append((item.image, reason))
            continue
        chosen = texts if kind == "paired" else ()
        rows.append(
            Row(
                number=item.number,
                image=image,
                texts=tuple(said.text for said in chosen),
                labels=_labels(kind, chosen, code),
                kinds=tuple(said.kind for said in chosen),
                patient=entry.patient,
                eye=eye or "",
                split=entry.split,
                dataset=dataset.name,
            )
        )
        codes.append(code)
    return rows, codes


def _labels(kind: Kind, texts: tuple[Text, ...], code: str) -> tuple[str, ...]:
    if kind == "paired":
        return tuple(said.category for said in texts)
    return split_labels(code) if kind == "multilabel" else (code,) if code else ()


def _unexpected_counts(dataset: Dataset, target: Target | None, found: int, codes: list[str]) -> list[str]:
    notes = []
    if dataset.count is not None and found != dataset.count:
        notes.append(f"WARNING: {found} photographs found, {dataset.title} has {dataset.count}")
    counts = Counter(codes)
    expected = target.counts if target else {}
    unlike = [f"{code}: {counts[code]}, not {number}" for code, number in expected.items() if counts[code] != number]
    if unlike:
        notes.append(f"WARNING: photographs by label are not as published ({'; '.join(unlike)})")
    return notes
