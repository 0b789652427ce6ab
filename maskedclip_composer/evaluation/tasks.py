"""A downstream task as its yaml describes it."""

from dataclasses import dataclass, field

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.kinds import TargetKind


@dataclass(frozen=True, kw_only=True)
class PromptSource:
    """Where a prompt pack keeps the words of the classes.

    Attributes:
        dataset: Name as `data_prep list` shows it.
        target: Which of its labellings; null takes the first.
    """

    dataset: str
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """A labelled data set and how its labels are to be read.

    Attributes:
        title: Its name in print.
        data: Folder or URL with train, val and test, each MDS shards or a folder per class; below `data_root` unless
            it is absolute or a URL.
        kind: nominal, ordinal or multilabel.
        classes: Codes in their order; null takes the labels that there are, sorted.
        names: What the codes mean; a code that is not listed is its own name.
        prompts: For zero-shot; null where no pack knows the classes.
        source: Of data and split, for reports.
        seen_by: Public encoders whose pre-training holds the data set, by their prefix in `checkpoints`, such as
            flair, and where that is said.
    """

    title: str
    data: str
    kind: TargetKind = "nominal"
    classes: list[str] | None = None
    names: dict[str, str] = field(default_factory=dict)
    prompts: PromptSource | None = None
    source: str = ""
    seen_by: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        classes = self.classes or []
        if len(set(classes)) < len(classes):
            raise UserError(f"task {self.title}: classes={classes} names a class twice.")
        unknown = [code for code in self.names if classes and code not in classes]
        if unknown:
            raise UserError(f"task {self.title}: names has {unknown[0]!r}, which is none of classes={classes}.")
