"""What a data set says of itself: where its photographs, labels, patients and texts are. Data only; `read.py` reads it.

Paths are patterns that fit the end of a path below the root, blind to case, with `*` inside one name: `train` fits
`EyePACS/Train` too. Several of them are variants of mirrors, tried in their order; `.` is the root itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from data_prep.readers.texts import Text
from maskedclip_composer.data.schema import Kind
from maskedclip_composer.data.tables import Form
from maskedclip_composer.errors import UserError

Role = Literal["paired", "unpaired", "downstream", "substitute", "own"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one sheet row says of one photograph; empty where it says nothing.

    Attributes:
        image: Name or path of the photograph, suffix optional.
        label: Published code.
        labels: Published codes that are all true, where the target has `several`.
        texts: What is said of it, in words.
        left_out: Why the photograph is of no use.
    """

    image: str
    label: str = ""
    labels: tuple[str, ...] = ()
    patient: str = ""
    eye: str = ""
    split: str = ""
    texts: tuple[Text, ...] = ()
    left_out: str = ""


Cell = Callable[..., Any]
"""Returns the cell of the first of the named columns that the sheet has; raises UserError where it has none."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of labels. Every tuple of columns names the variants of one column.

    Attributes:
        paths: Where it is.
        form: How it is laid out.
        image: Column that names the photograph.
        rename: (regular expression, replacement) that turns that cell into a file name.
        key: Columns that, joined by `_`, equal the group `key` of `Part.pattern`, where the sheet is not by image.
        patient: Column.
        eye: Column.
        eyes: Its codes, where they are not left, right, OS, OD or L, R.
        split: Column.
        splits: Its codes.
        text: Column of a sentence.
        no_text: Texts that say nothing, in lower case.
        entries: Takes the place of all columns above: makes the entries of one row.
    """

    paths: tuple[str, ...]
    form: Form = field(default_factory=Form)
    image: tuple[str, ...] = ("image",)
    rename: tuple[str, str] | None = None
    key: tuple[tuple[str, ...], ...] = ()
    patient: tuple[str, ...] = ()
    eye: tuple[str, ...] = ()
    eyes: Mapping[str, str] = field(default_factory=dict)
    split: tuple[str, ...] = ()
    splits: Mapping[str, str] = field(default_factory=dict)
    text: tuple[str, ...] = ()
    no_text: frozenset[str] = frozenset()
    entries: Callable[[Cell, tuple[str, ...]], list[Entry]] | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """Photographs that are found in one way, such as the training set.

    Attributes:
        images: Folders of photographs.
        example: Name of a photograph below it, for the printed layout.
        split: Official split.
        sheets: Variants of the sheet; without one the photographs are those on disk.
        sheet_optional: Whether the photographs are taken without labels where the sheet is missing.
        optional: Whether the part may be missing.
        pattern: Regular expression with the groups `label`, `patient`, `eye`, `split` or `key`, for the path of a
            photograph below the folder of `images`. Without a sheet, photographs that it does not fit are left out.
        ignore: Regular expression for paths that are no photographs of this part (masks, vessel maps).
        corrections: A sheet as `sheets`, whose labels replace theirs.
        pairs: A table of two columns, left and right photograph of one examination.
    """

    images: tuple[str, ...]
    example: str
    split: str = ""
    sheets: tuple[Sheet, ...] = ()
    sheet_optional: bool = False
    optional: bool = False
    pattern: str = ""
    ignore: str = ""
    corrections: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Target:
    """One labelling.

    Attributes:
        classes: Category of each published code, blind to case; codes of equal category are told apart no further and
            become the first of them. None takes every code as its own category.
        columns: Of the sheet; empty where the group `label` of `Part.pattern` is the code.
        left_out: Codes of photographs that are of no use, and why.
        counts: Photographs of each code as published.
        several: Whether any number of the codes is true of a photograph: `Sheet.entries` gives them, and multilabel
            records are made of it.
    """

    classes: Mapping[str, str] | None
    columns: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    several: bool = False

    @property
    def kind(self) -> Kind:
        """Records for evaluation that are made of it."""
        return "multilabel" if self.several else "labelled"


@dataclass(frozen=True, kw_only=True)
class Division:
    """Shares of the parts that a data set's own split lacks; an official test or validation set is kept.

    The default is 70/30 for the test set, then 80/20: 56, 14 and 30 % of the whole.

    Attributes:
        test: Of all photographs; 0 is none.
        val: Of those that are not in the test set; 0 is none.
    """

    test: float = 0.3
    val: float = 0.2

    def __post_init__(self) -> None:
        for name, share, what in (("--test", self.test, "test"), ("--val", self.val, "validation")):
            if not 0 <= share < 1:
                raise UserError(f"{name} {share}: give a share between 0 and 1, or 0 for no {what} set")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set as released.

    Attributes:
        name: On the command line, and in the shards' column `dataset`.
        title: Its name in print.
        role: In MaskedCLIP (Zhu et al., 2025), or `substitute` for its private sets.
        kind: Records that are made of it unless told otherwise.
        task: What its labels are about.
        source: Where to get it.
        licence: Name of its licence, or that none is stated.
        terms: What the licence means here, in a few words.
        citation: Whom to cite.
        parts: Where its photographs are.
        targets: Its labellings, the first one being the default.
        count: Photographs as published, those that are left out included.
        cropped: Whether it holds regions of photographs: there is no surround to crop.
        traps: What to know of it.
        division: How its labelled records are divided where its own split does not say.
    """

    name: str
    title: str
    role: Role
    kind: Kind
    task: str
    source: str
    licence: str
    terms: str
    citation: str
    parts: tuple[Part, ...]
    targets: Mapping[str, Target] = field(default_factory=dict)
    count: int | None = None
    cropped: bool = False
    traps: tuple[str, ...] = ()
    division: Division = Division()
