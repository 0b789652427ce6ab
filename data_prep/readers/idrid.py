"""IDRiD disease grading (Porwal et al., 2018; CC BY 4.0): retinopathy grade 0-4, risk of macular oedema 0-2.

The official test set stays as it is; a validation set is taken from the training set.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_prep.folders import ImageLookup, find_first
from data_prep.readers.command import Reading, add_reader
from data_prep.tables import cell_text, read_table
from maskedclip_composer.errors import UserError

LAYOUT = """\
  B. Disease Grading/1. Original Images/{a. Training Set,b. Testing Set}/IDRiD_NNN.jpg
  B. Disease Grading/2. Groundtruths/{a. IDRiD_Disease Grading_Training Labels.csv,
                                      b. IDRiD_Disease Grading_Testing Labels.csv}
"""
Target = Literal["grade", "dme"]
# The name of the second one ends in a space in the released files; `read_table` strips it.
_COLUMNS: dict[Target, str] = {"grade": "Retinopathy grade", "dme": "Risk of macular edema"}
_CODES: dict[Target, tuple[str, ...]] = {"grade": ("0", "1", "2", "3", "4"), "dme": ("0", "1", "2")}
_IMAGES = {"train": "**/1. Original Images/a. Training Set", "test": "**/1. Original Images/b. Testing Set"}
_LABELS = {"train": "**/2. Groundtruths/a. *.csv", "test": "**/2. Groundtruths/b. *.csv"}


@dataclass(frozen=True, kw_only=True)
class _Graded:
    image: str
    label: str
    split: str
    sha256: str


def read(root: Path, target: Target = "grade", val_share: float = 0.2, seed: int = 17) -> Reading:
    """Read the official split below `root` and divide its training set, equally for every class.

    Training images that are byte-identical to a test image are left out. Training images that are identical to each
    other stay, in `train`, so that none of them validates another.

    Raises:
        UserError: A folder, sheet or image is missing, or a label is not one of the published codes.
    """
    if not 0 < val_share < 1:
        raise UserError(f"--val {val_share}: give a share between 0 and 1")
    graded = [item for split in ("train", "test") for item in _read_split(root, split, target)]
    identical: dict[str, list[_Graded]] = defaultdict(list)
    for item in graded:
        identical[item.sha256].append(item)
    groups = [group for group in identical.values() if len(group) > 1]
    leaked = {
        item.image: f"byte-identical to {test.image}"
        for group in groups
        for test in group
        if test.split == "test"
        for item in group
        if item.split == "train"
    }
    twins = {item.image for group in groups for item in group}
    train = [item for item in graded if item.split == "train" and item.image not in leaked]
    validate = _stratified(
        [item for item in train if item.image not in twins], round(val_share * len(train)), seed, target
    )
    rows = [
        {
            "image": item.image,
            "label": item.label,
            "split": "val" if item.image in validate else item.split,
            "dataset": "idrid",
        }
        for item in graded
        if item.image not in leaked
    ]
    notes = [
        f"byte-identical: {' = '.join(f'{Path(i.image).parent.name}/{Path(i.image).name} ({i.label})' for i in group)}"
        + (", different labels" if len({item.label for item in group}) > 1 else "")
        for group in groups
    ]
    return Reading(
        rows=rows, left_out=[(image, f"is {reason}") for image, reason in leaked.items()], notes=tuple(notes)
    )


def _read_split(root: Path, split: str, target: Target) -> list[_Graded]:
    folder, sheet = find_first(root, (_IMAGES[split],)), find_first(root, (_LABELS[split],))
    if folder is None or sheet is None:
        missing = _IMAGES[split] if folder is None else _LABELS[split]
        raise UserError(f"--root {root}: {missing.removeprefix('**/')} is missing; IDRiD is expected as\n{LAYOUT}")
    table = read_table(sheet)
    for column in ("Image name", _COLUMNS[target]):
        if column not in table.columns:
            raise UserError(f"sheet {sheet}: has no column {column!r}, it has {', '.join(table.columns)}")
    lookup = ImageLookup(root, folder)
    graded = []
    for number, cells in zip(table.numbers, table.rows, strict=True):
        name, label = cell_text(cells["Image name"]), cell_text(cells[_COLUMNS[target]])
        image = lookup.find(name)
        if image is None:
            raise UserError(f"sheet {sheet}: row {number}: no image {name} in {folder}; download the set again")
        if label not in _CODES[target]:
            raise UserError(f"sheet {sheet}: row {number}: label {label!r} is not one of {', '.join(_CODES[target])}")
        sha256 = hashlib.sha256((root / image).read_bytes()).hexdigest()
        graded.append(_Graded(image=image, label=label, split=split, sha256=sha256))
    return graded


def _stratified(items: list[_Graded], count: int, seed: int, target: Target) -> set[str]:
    from sklearn.model_selection import train_test_split

    try:
        _, chosen = train_test_split(
            [item.image for item in items],
            test_size=count,
            random_state=seed,
            stratify=[item.label for item in items],
        )
    except ValueError as error:
        raise UserError(
            f"IDRiD: cannot take {count} validation images of every {target} from {len(items)}: {error}"
        ) from error
    return set(chosen)


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = add_reader(
        subparsers,
        "idrid",
        "IDRiD's disease grading, with a validation set from its training set",
        LAYOUT,
        lambda root, args: read(root, args.target, args.val, args.seed),
    )
    parser.add_argument("--target", choices=tuple(_COLUMNS), default="grade", help="label to use (default: grade)")
    parser.add_argument("--val", type=float, default=0.2, metavar="SHARE", help="of the training set (default: 0.2)")
    parser.add_argument("--seed", type=int, default=17, help="of the validation set (default: 17)")
