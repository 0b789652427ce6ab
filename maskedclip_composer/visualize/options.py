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
        photos: Photographs (`use/photographs.py`), or a table of their features that `embed` wrote.
        model: Source of the model; a table of features needs none, unless texts are given.
        out: Folder of the pictures.
        images: Folder that a table's paths start from.
        batch_size: Photographs of a forward pass.
        workers: Processes that read photographs.
        device: auto, cpu or cuda.
        kinds: Of `kinds.KINDS`; empty draws all that can be drawn.
        texts: To compare photographs with.
        labels: Column of labels.
        sets: Column of sets.
        count: Photographs that are drawn.
        points: Photographs in `spaces`, at most.
        mask_ratio: Share of hidden patches; None takes the run's.
        seed: Of all draws.
        log: Store the files with the model's own MLflow run.
        command: As it was typed, for the page.
    """

    photos: str
    model: str | None
    out: Path
    images: str | None = None
    batch_size: int = 64
    workers: int = 0
    device: str = "auto"
    kinds: Sequence[str] = ()
    texts: Sequence[str] = ()
    labels: str | None = None
    sets: str | None = None
    count: int = 4
    points: int = 1000
    mask_ratio: float | None = None
    seed: int = 0
    log: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: give 0 or more.")
        if self.mask_ratio is not None and not 0 < self.mask_ratio < 1:
            raise UserError(f"--mask-ratio {self.mask_ratio}: give a share between 0 and 1; 0.75 is usual.")
        if len(self.texts) > _MOST_TEXTS:
            raise UserError(f"--text: {len(self.texts)} texts have no room in a picture.\nGive {_MOST_TEXTS} or fewer.")
        if not all(text.strip() for text in self.texts):
            raise UserError("--text: one of the texts is empty.\nGive each at least one word.")
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"--out {self.out} is a file.\nGive a folder, which is made when absent.")
