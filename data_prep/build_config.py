"""What a build is made of: the yaml's keys."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from maskedclip_composer.data.photograph import Encoding, Recipe
from maskedclip_composer.errors import UserError

Group = Literal["downstream", "paired", "unpaired"]
# Downstream first: what is in its test sets must be known before anything is prepared for training.
GROUPS: tuple[Group, ...] = ("downstream", "paired", "unpaired")
# Say where and how to work, not what comes out.
_OF_THIS_MACHINE = ("out", "roots", "work", "workers", "skip_missing")


@dataclass(frozen=True, kw_only=True)
class SetConfig:
    """One data set. What it is read as is said by the group that it stands in.

    Attributes:
        root: Its folder as released; None is `<roots>/<name>`.
        target: Which of its labels; None is the first.
        template: Words the names of classes and findings of a paired set, for example `a photograph of {label}`; None
            leaves the wording to training (`data.prompts`).
    """

    root: str | None = None
    target: str | None = None
    template: str | None = None


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What goes into a build.

    Attributes:
        out: New folder, or the URL of an object store.
        roots: Folder of the downloads, one folder a set.
        work: Folder for unfinished work; None is `<out>.partial`.
        size: Short side after the crop in pixels; 0 keeps.
        quality: JPEG quality.
        encoding: `jpeg`, or `raw` for plain pixels (`photograph.Recipe`).
        workers: Processes; None is one per CPU.
        max_bad: Share of a set's photographs that may be unusable.
        seed: Of the divisions that are drawn.
        contamination: What becomes of a photograph for pre-training that is, or looks like, one of a downstream test
            set: `exclude` keeps it out, `allow` keeps it; `contamination.csv` lists it.
        duplicates: What becomes of a photograph whose file equals one of an earlier set or row of its group, paired or
            unpaired: `first` leaves it out, `keep` keeps it.
        skip_missing: Go on without sets that are not below `roots`.
        paired: Sets with texts, by name.
        unpaired: Sets of bare photographs, by name.
        downstream: Labelled sets for evaluation, by name.
    """

    out: str
    roots: str = "downloads"
    work: str | None = None
    size: int = 512
    quality: int = 90
    encoding: Encoding = "jpeg"
    workers: int | None = None
    max_bad: float = 0.02
    seed: int = 17
    contamination: Literal["exclude", "allow"] = "exclude"
    duplicates: Literal["first", "keep"] = "first"
    skip_missing: bool = False
    paired: dict[str, SetConfig] = field(default_factory=dict)
    unpaired: dict[str, SetConfig] = field(default_factory=dict)
    downstream: dict[str, SetConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.paired or self.unpaired or self.downstream):
            raise UserError("no data set is named; fill paired, unpaired or downstream, for example `hrf: {}`")
        self.recipe()
        for group, name, chosen in self.sets():
            if chosen.template is None:
                continue
            if group != "paired":
                raise UserError(f"{group}.{name}.template: is for sets in `paired`, these have no texts; remove it")
            if "{label}" not in chosen.template:
                raise UserError(
                    f"paired.{name}.template={chosen.template!r} has no {{label}}; "
                    "write 'A fundus photograph of {label}'"
                )

    def recipe(self, *, crop: bool = True) -> Recipe:
        """Return what is done to the photographs of a set; `crop` says whether they have a surround at all."""
        return Recipe(size=self.size, quality=self.quality, crop=crop, encoding=self.encoding)

    def sets(self) -> Iterator[tuple[Group, str, SetConfig]]:
        """Yield group, name and settings of every set, in the order in which they are done."""
        for group in GROUPS:
            for name, chosen in getattr(self, group).items():
                yield group, name, chosen

    def settings(self) -> dict[str, Any]:
        """Return what decides the result, for report and card."""
        of_jpeg = () if self.encoding == "jpeg" else ("quality",)
        left_out = (*_OF_THIS_MACHINE, *GROUPS, *of_jpeg)
        plain = {name: value for name, value in asdict(self).items() if name not in left_out}
        for group in GROUPS:
            sets = getattr(self, group)
            plain[group] = {
                name: {k: v for k, v in asdict(chosen).items() if k != "root" and v is not None}
                for name, chosen in sets.items()
            }
        return plain
