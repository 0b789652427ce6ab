"""What a user of `visualize` chooses, checked before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskedclip_composer.errors import UserError

_MOST_TEXTS = 8


@dataclass(frozen=True, kw_only=True)
class Options:
    """One call.

    Attributes:
        photos: Photographs, or a table of their features that `embed` wrote.
        model: Source of the model; a table of features needs none, unless texts are given.
        out: Folder of the pictures.
        images: Folder that a table's paths start from.
        kinds: Of `kinds.KINDS`; empty draws all that can be drawn.
        texts: To compare photographs with.
        labels: Column of labels.
        sets: Column of sets.
        count: Photographs that are drawn.
        points: Photographs in `spaces`, at most.
        mask_ratio: Share of hidden patches; None takes the run's.
        seed: Of all draws.
        workers: Processes that read photographs.
        device: None takes cuda where there is one.
        log: Store the files with the model's own MLflow run.
        command: As it was typed, for the page.
    """

    photos: Path
    model: str | None
    out: Path
    images: Path | None = None
    kinds: Sequence[str] = ()
    texts: Sequence[str] = ()
    labels: str | None = None
    sets: str | None = None
    count: int = 4
    points: int = 1000
    mask_ratio: float | None = None
    seed: int = 0
    workers: int = 0
    device: str | None = None
    log: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        for name, least, usual in (("count", 1, 4), ("points", 3, 1000), ("workers", 0, 4), ("seed", 0, 0)):
            value = getattr(self, name)
            if value < least:
                raise UserError(f"--{name} {value}: give {least} or more; {usual} is usual.")
        if self.mask_ratio is not None and not 0 < self.mask_ratio < 1:
            raise UserError(f"--mask-ratio {self.mask_ratio}: give a share between 0 and 1; 0.75 is usual.")
        if len(self.texts) > _MOST_TEXTS:
            raise UserError(f"--text: {len(self.texts)} texts have no room in a picture.\nGive {_MOST_TEXTS} or fewer.")
        if not all(text.strip() for text in self.texts):
            raise UserError("--text: one of the texts is empty.\nGive each at least one word.")
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"--out {self.out} is a file.\nGive a folder, which is made when absent.")
