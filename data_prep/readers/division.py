"""Divide labelled photographs into train, val and test: what a data set's own split lacks is drawn from the rest."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.manifest import Row
from data_prep.readers.dataset import Division
from data_prep.readers.read import Reading
from maskedclip_composer.data.subsets import below_common_folder, draw_key

PARTS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """Photographs of one patient, or one of a patient who is not known.

    Attributes:
        members: Rows.
        codes: Labels of them; empty text where a photograph has none.
        twins: Whether some of them are byte-identical with others: such units stay in `train`, and so together.
    """

    members: tuple[int, ...]
    codes: frozenset[str]
    twins: bool


def divide(
    reading: Reading,
    root: Path,
    division: Division,
    seed: int,
    others: Mapping[str, Mapping[str, str]] | None = None,
) -> Reading:
    """Draw the parts that the official split lacks from its training set, or from everything where there is none.

    Every class, or label where photographs have several, gives the same share and, where three patients have it, is in
    every part; patients stay whole. Photographs that are byte-identical to one of an official test set are left out of
    training. Those that are identical to each other stay in `train`, so that none is counted twice and none validates
    another. The draw depends on the names of the photographs, not on their order.

    Args:
        reading: Labelled rows.
        root: Resolved folder that their images lie below.
        division: Shares of the parts that are drawn.
        seed: Of the draw.
        others: Other labellings of the same photographs, name -> image -> code: identical photographs are compared in
            these too.
    """
    rows, codes, labels = reading.rows, reading.codes, reading.labels
    groups = _identical(rows, root)
    leaked = {
        index: rows[test].image
        for group in groups
        for test in group
        if rows[test].split == "test"
        for index in group
        if rows[index].split in ("", "train")
    }
    official = {row.split for row in rows}
    pool = [index for index, row in enumerate(rows) if row.split in ("", "train") and index not in leaked]
    shares = {
        name: share
        for name, share in (("test", division.test), ("val", division.val))
        if share and name not in official and pool
    }
    splits = [row.split or "train" for row in rows]
    units = _units(pool, rows, labels, groups, seed)
    for unit, part in zip(units, _draw(units, shares), strict=True):
        for index in unit.members:
            splits[index] = part
    kept = [index for index in range(len(rows)) if index not in leaked]
    notes = [
        *_identical_notes(groups, rows, codes, others or {}),
        *_patients_across(rows, splits, kept),
        f"division: {describe(official, division, seed)}",
        *_absent(labels, splits, pool, shares),
    ]
    return replace(
        reading,
        rows=[replace(rows[index], split=splits[index]) for index in kept],
        codes=[codes[index] for index in kept],
        left_out=[*reading.left_out, *((rows[i].image, f"is byte-identical to {test}") for i, test in leaked.items())],
        notes=[*reading.notes, *notes],
    )


def describe(official: set[str], division: Division, seed: int) -> str:
    """Say in words how `divide` goes about rows that have the official splits `official`."""
    kept = [name for name in PARTS if name in official]
    if "val" in kept and "test" in kept:
        return f"official {', '.join(kept)}"
    words = [f"official {', '.join(kept)}"] if kept else []
    if "test" not in kept:
        words.append(f"test {division.test:.0%} of the photographs" if division.test else "no test set")
    if "val" not in kept:
        words.append(f"val {division.val:.0%} of what test leaves" if division.val else "no validation set")
    drawn = ("test" not in kept and division.test) or ("val" not in kept and division.val)
    return ", ".join(words) + f", drawn with seed {seed}: equally of every class, patients whole" * bool(drawn)


def _identical(rows: list[Row], root: Path) -> list[list[int]]:
    """Return the groups of two and more byte-identical photographs."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        by_size[(root / row.image).stat().st_size].append(index)
    by_content: dict[str, list[int]] = defaultdict(list)
    for group in by_size.values():
        if len(group) == 1:  # most photographs: large sets need not be read
            continue
        for index in group:
            by_content[hashlib.sha256((root / rows[index].image).read_bytes()).hexdigest()].append(index)
    return sorted(group for group in by_content.values() if len(group) > 1)


def _units(
    pool: list[int], rows: list[Row], labels: list[tuple[str, ...]], groups: list[list[int]], seed: int
) -> list[_Unit]:
    """Join the photographs of each patient; in the order of the draw."""
    names = below_common_folder([row.image for row in rows])
    joined: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index in pool:
        patient = rows[index].patient
        joined[("patient", patient) if patient else ("image", names[index])].append(index)
    twins = {index for group in groups for index in group}
    return [
        _Unit(
            members=tuple(members),
            codes=frozenset(label for index in members for label in labels[index] or ("",)),
            twins=not twins.isdisjoint(members),
        )
        for members in sorted(joined.values(), key=lambda unit: draw_key(seed, min(names[index] for index in unit)))
    ]


def _draw(units: list[_Unit], shares: Mapping[str, float]) -> list[str]:
    """Choose the part of each unit, the units being in the order of the draw.

    A class with few units gets one in each part first, and none of them is the last that another class could have in
    train. The rest of every stratum, the units of which one class is the rarest, goes to the parts by their shares of
    its photographs.
    """
    number = Counter(code for unit in units for code in unit.codes)
    stratum = [min(unit.codes, key=lambda code: (number[code], code)) for unit in units]
    parts = ["train" if unit.twins else "" for unit in units]
    having = {code: [place for place, unit in enumerate(units) if code in unit.codes] for code in number}

    def is_spare(place: int) -> bool:
        """Tell whether every class of a unit is in train, or could still be by another one."""
        return all(
            any(parts[other] in ("", "train") for other in having[code] if other != place)
            for code in units[place].codes
        )

    for code in sorted(number, key=lambda code: (number[code], code)):
        for name in ("train", *shares):
            if name in {parts[place] for place in having[code]}:
                continue
            free = (p for p in having[code] if not parts[p] and (name == "train" or is_spare(p)))
            if (first := next(free, None)) is not None:
                parts[first] = name
    for name, share in shares.items():
        of_pool, lower, free = Counter[str](), Counter[str](), Counter[str]()
        for unit, part, code in zip(units, parts, stratum, strict=True):
            # The validation set is a share of what the test set leaves.
            of_pool[code] += len(unit.members) * (name == "test" or part != "test")
            lower[code] += len(unit.members) * (part == name)
            free[code] += len(unit.members) * (not part)
        quota = _allot(share, of_pool, lower, free)
        for place, (unit, code) in enumerate(zip(units, stratum, strict=True)):
            if not parts[place] and lower[code] + len(unit.members) / 2 < quota[code]:
                parts[place] = name
                lower[code] += len(unit.members)
    return [part or "train" for part in parts]


def _allot(share: float, sizes: Counter[str], lower: Counter[str], free: Counter[str]) -> dict[str, int]:
    """Round `share` of every size up or down, within bounds, so that the sum comes nearest to `share` of all."""
    quota = {code: min(max(int(share * size), lower[code]), lower[code] + free[code]) for code, size in sizes.items()}
    # A class that cannot give its part leaves the sum short: the others do not give more in its place.
    can_give = [code for code, size in sizes.items() if quota[code] < min(share * size, lower[code] + free[code])]
    lacking = max(0, round(share * sizes.total()) - sum(quota.values()))
    for code in sorted(can_give, key=lambda code: (quota[code] - share * sizes[code], code))[:lacking]:
        quota[code] += 1
    return quota


def _identical_notes(
    groups: list[list[int]], rows: list[Row], codes: list[str], others: Mapping[str, Mapping[str, str]]
) -> list[str]:
    labellings = {"labels": {row.image: code for row, code in zip(rows, codes, strict=True)}, **others}
    notes = []
    for group in groups:
        unlike = [
            name for name, code in labellings.items() if len({code.get(rows[index].image, "") for index in group}) > 1
        ]
        said = " = ".join(f"{_short(rows[index])} ({codes[index]})" for index in group)
        notes.append(f"byte-identical: {said}" + f", different {' and '.join(unlike)}" * bool(unlike))
    return notes


def _patients_across(rows: list[Row], splits: list[str], kept: list[int]) -> list[str]:
    """Say which patients an official split has in several parts."""
    parts: dict[str, set[str]] = defaultdict(set)
    for index in kept:
        if rows[index].patient:
            parts[rows[index].patient].add(splits[index])
    across = [patient for patient, names in parts.items() if len(names) > 1]
    if not across:
        return []
    return [f"WARNING: the official split has {len(across)} patients in several parts, such as {across[0]}"]


def _absent(
    labels: list[tuple[str, ...]], splits: list[str], pool: list[int], shares: Mapping[str, float]
) -> list[str]:
    number = Counter(label for index in pool for label in labels[index])
    notes = []
    for name in ("train", *shares) if shares else ():
        found = {label for index in pool if splits[index] == name for label in labels[index]}
        absent = [f"{code} ({number[code]} in all)" for code in sorted(set(number) - found)]
        if absent:
            notes.append(f"WARNING: {name} has no photograph of {', '.join(absent)}: too few to divide")
    return notes


def _short(row: Row) -> str:
    return "/".join(Path(row.image).parts[-2:])
