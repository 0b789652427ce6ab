"""Take a validation set from an official training set, and keep photographs of the test set out of training."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from data_prep.manifest import Row
from data_prep.readers.read import Reading
from maskedclip_composer.errors import UserError


def divide(
    reading: Reading, root: Path, share: float, seed: int, others: Mapping[str, Mapping[str, str]] | None = None
) -> Reading:
    """Move a share of the labelled rows of split `train` to `val`: equally of every class, patients whole.

    Training photographs that are byte-identical to one of the test set are left out, also where the share is 0. Those
    that are identical to each other stay in `train`, so that none of them validates another.

    Args:
        reading: Labelled rows with the splits `train` and `test`.
        root: Resolved folder that their images lie below.
        share: Of the training photographs, from 0 to below 1.
        seed: Of the draw.
        others: Other labellings of the same photographs, name -> image -> code: identical photographs are compared in
            these too.

    Raises:
        UserError: A class is too small for that share.
    """
    if not 0 <= share < 1:
        raise UserError(f"--val {share}: give a share between 0 and 1, or 0 for no validation set")
    identical: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(reading.rows):
        identical[hashlib.sha256((root / row.image).read_bytes()).hexdigest()].append(index)
    groups = [group for group in identical.values() if len(group) > 1]
    rows, codes = reading.rows, reading.codes
    leaked = {
        index: rows[test].image
        for group in groups
        for test in group
        if rows[test].split == "test"
        for index in group
        if rows[index].split == "train"
    }
    twins = {index for group in groups for index in group}
    train = [index for index, row in enumerate(rows) if row.split == "train" and index not in leaked]
    units: dict[str, list[int]] = defaultdict(list)  # a patient, or a photograph of nobody known
    for index in train:
        units[f"patient {rows[index].patient}" if rows[index].patient else rows[index].image].append(index)
    free = [unit for unit, members in units.items() if twins.isdisjoint(members)]
    classes = [max(codes[index] for index in units[unit]) for unit in free]
    taken = _stratified(free, classes, round(share * len(units)), seed) if share else []
    chosen = {index for unit in taken for index in units[unit]}
    labellings = {"labels": {row.image: code for row, code in zip(rows, codes, strict=True)}, **(others or {})}
    notes = []
    for group in groups:
        unlike = [
            name for name, code in labellings.items() if len({code.get(rows[index].image, "") for index in group}) > 1
        ]
        said = " = ".join(f"{_short(rows[index])} ({codes[index]})" for index in group)
        notes.append(f"byte-identical: {said}" + f", different {' and '.join(unlike)}" * bool(unlike))
    kept = [index for index in range(len(rows)) if index not in leaked]
    return replace(
        reading,
        rows=[replace(rows[index], split="val") if index in chosen else rows[index] for index in kept],
        codes=[codes[index] for index in kept],
        left_out=[*reading.left_out, *((rows[i].image, f"is byte-identical to {test}") for i, test in leaked.items())],
        notes=[*reading.notes, *notes],
    )


def _short(row: Row) -> str:
    return "/".join(Path(row.image).parts[-2:])


def _stratified(units: list[str], classes: list[str], count: int, seed: int) -> list[str]:
    from sklearn.model_selection import train_test_split

    try:
        _, chosen = train_test_split(units, test_size=count, random_state=seed, stratify=classes)
    except ValueError as error:
        sizes = ", ".join(f"{name} {number}" for name, number in sorted(Counter(classes).items()))
        raise UserError(
            f"--val: cannot take {count} of {len(units)} for validation, some of every class ({sizes}): {error}; "
            "give another share, or 0 for none"
        ) from error
    return list(chosen)
