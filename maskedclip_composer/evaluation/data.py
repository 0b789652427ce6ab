"""A labelled data set in three splits: which labels there are, of what kind, and which are true of each photograph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from maskedclip_composer.data.subsets import shots, subset
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.kinds import Amount, TargetKind
from maskedclip_composer.evaluation.photographs import Photographs, open_split

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class LabelledSplit:
    """One split; `one_hot[i, c]` says whether class `c` is true of photograph `i`."""

    name: str
    photographs: Photographs
    one_hot: Bool[np.ndarray, "images classes"]

    def __len__(self) -> int:
        return len(self.one_hot)

    @property
    def targets(self) -> Int[np.ndarray, " images"]:
        """The class of each photograph, int64, where each has exactly one.

        Raises:
            ValueError: Some have several, or none.
        """
        if (self.one_hot.sum(axis=1) != 1).any():
            raise ValueError(f"photographs of {self.name} have several labels or none: use one_hot")
        return self.one_hot.argmax(axis=1)

    @property
    def defined(self) -> Bool[np.ndarray, " classes"]:
        """Whether each class is true of some photographs and not of others, so that curves are defined."""
        return self.one_hot.any(axis=0) & ~self.one_hot.all(axis=0)

    def draw(self, amount: Amount, seed: int) -> Int[np.ndarray, " chosen"]:
        """Return the rows of a part of the split, in ascending order (`data/subsets.py`).

        A fraction has patients whole, shots have not; of an amount that is neither there are no rows.
        """
        known = {"names": self.photographs.names, "patients": self.photographs.patients}
        if amount.shots is not None:
            return shots(self.one_hot, amount.shots, seed, **known)
        if amount.fraction is not None:
            return subset(self.one_hot, amount.fraction, seed, **known)
        return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """A data set.

    Attributes:
        kind: What its labels are.
        classes: Codes of the classes, as the labels are written; in their order where they are grades.
        names: What each is called in tables and figures.
        place: Folder or URL that it was loaded from.
    """

    kind: TargetKind
    classes: tuple[str, ...]
    names: tuple[str, ...]
    place: str
    train: LabelledSplit
    val: LabelledSplit
    test: LabelledSplit

    @property
    def trained(self) -> Bool[np.ndarray, " classes"]:
        """Whether train has a photograph of each class; metrics leave the others out."""
        return self.train.one_hot.any(axis=0)


def load_labelled(
    data: str,
    *,
    cache: str | None = None,
    kind: TargetKind = "nominal",
    classes: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
) -> LabelledData:
    """Open the splits train, val and test of a labelled data set.

    Each is an MDS folder or, where a photograph has one label, a folder per class. A class that is absent from train
    stays: it counts as none of the `trained`.

    Args:
        data: Folder, or a URL that Streaming reads.
        cache: Folder for the shards of a URL, and for those that are stored compressed.
        kind: What the labels are.
        classes: All of them in their order. None takes the sorted labels of all splits, by value where all are whole
            numbers. The order of grades must be given where they are no numbers, or numbers in another order (PAPILA's
            1 is glaucoma, its 2 suspected glaucoma).
        names: What classes are called, by code; a class that is not named keeps its code.

    Raises:
        UserError: A split is missing or of the wrong kind, a label is not one of `classes`, there is one class only, or
            train, val or test tell no classes apart.
    """
    photographs = {split: open_split(data, split, cache, kind) for split in SPLITS}
    codes = _ordered(data, photographs, kind, classes)
    unknown = [code for code in names or {} if code not in codes]
    if unknown:
        raise UserError(f"names has {unknown[0]!r}, but {data} has the classes {', '.join(codes)}.\nTake it out.")
    splits = {name: _split(name, part, codes) for name, part in photographs.items()}
    for part in splits.values():
        if not (part.defined & splits["train"].one_hot.any(axis=0)).any():
            raise UserError(_undefined(data, part, kind))
    return LabelledData(
        kind=kind, classes=codes, names=tuple((names or {}).get(code, code) for code in codes), place=data, **splits
    )


def _ordered(
    data: str, photographs: Mapping[str, Photographs], kind: TargetKind, given: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the classes in their order; see `load_labelled`."""
    found = {label for part in photographs.values() for labels in part.labels for label in labels}
    if given is None:
        numbers = all(label.removeprefix("-").isdecimal() for label in found)
        if kind == "ordinal" and not numbers:
            raise UserError(
                f"{data} has the grades {', '.join(sorted(found))}, which are no whole numbers.\n"
                "Give classes=[...] from the lowest to the highest."
            )
        given = sorted(found, key=lambda label: (int(label), label)) if numbers else sorted(found)
    if len(set(given)) < len(given):
        repeated = next(code for code in given if list(given).count(code) > 1)
        raise UserError(f"classes has {repeated!r} twice.\nTake one out.")
    if not given:
        raise UserError(f"{data}: no photograph has a label.\nConvert the data set again.")
    if kind != "multilabel" and len(given) < 2:
        raise UserError(f"{data} has the single class {given[0]!r}; ROC and PRC need at least two.")
    return tuple(given)


def _split(name: str, photographs: Photographs, classes: tuple[str, ...]) -> LabelledSplit:
    places = {code: place for place, code in enumerate(classes)}
    one_hot = np.zeros((len(photographs.labels), len(classes)), dtype=bool)
    for index, labels in enumerate(photographs.labels):
        for label in labels:
            if label not in places:
                raise UserError(
                    f"{photographs.describe(index)} has the label {label!r}, which is not one of classes="
                    f"[{', '.join(classes)}].\nAdd it there, or mend the label."
                )
            one_hot[index, places[label]] = True
    return LabelledSplit(name=name, photographs=photographs, one_hot=one_hot)


def _undefined(data: str, part: LabelledSplit, kind: TargetKind) -> str:
    remedy = "Mend the labels or split the data again."
    if kind != "multilabel" and len(part.one_hot) and part.one_hot.any(axis=0).sum() == 1:
        return f"{data}: all photographs of {part.name} have one label, so ROC and PRC are undefined there.\n{remedy}"
    return (
        f"{data}: no label that train has is true of some photographs of {part.name} and false of others, so ROC and "
        f"PRC are undefined there.\n{remedy}"
    )
