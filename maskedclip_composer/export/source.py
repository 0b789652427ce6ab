"""The model that is exported, with what its run says about it."""

from dataclasses import dataclass
from pathlib import Path

from maskedclip_composer.export.exact import load_exactly
from maskedclip_composer.export.sharded import LAYOUT
from maskedclip_composer.use.architecture import PREPARED, Architecture
from maskedclip_composer.use.dual_tower import DualTower
from maskedclip_composer.use.load import build_dual_tower, load_text_side, read_model
from maskedclip_composer.use.tokenizer import Tokenizer

CARD, DATA_CARD, DATA_CARDS, TERMS = "model_card.md", "data_card.md", "data/*/DATA_CARD.md", "TERMS.md"
_INTRODUCTION = "Terms of the data that the model was trained on, as the data cards of its run tell them.\n"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model to export.

    Attributes:
        name: Of the folder, for people.
        architecture: As its run describes it.
        model: On the CPU, in evaluation mode.
        tokenizer: None for a model that was trained without texts.
        folder: The run's, the exported one, or that of the file.
    """

    name: str
    architecture: Architecture
    model: DualTower
    tokenizer: Tokenizer | None
    folder: Path

    @property
    def card(self) -> str | None:
        """The run's model card; None where it has none."""
        return _text(self.folder / CARD)

    @property
    def data_card(self) -> str | None:
        """The card of all its training data, which the model card names; None where there is none."""
        return _text(self.folder / DATA_CARD)

    @property
    def tells_preparation(self) -> bool:
        """Whether it is recorded how photographs were prepared; `load` takes the default where it is not."""
        is_run = (self.folder / "config.yaml").is_file()
        return not is_run or any(self.folder.glob(f"data/*/{PREPARED}"))

    @property
    def terms(self) -> str | None:
        """What is recorded about the terms of the training data, as Markdown; None where nothing is."""
        if (earlier := _text(self.folder / TERMS)) is not None:  # of an export
            return earlier
        found = sorted(self.folder.glob(DATA_CARDS))
        sections = [f"# Stream {path.parent.name}\n\n{_section(path.read_text(), 'Terms')}" for path in found]
        return "\n".join([_INTRODUCTION, *sections]) if sections else None


def open_source(path: Path) -> Source:
    """Load a model that is to be exported.

    Args:
        path: As `maskedclip_composer.load` takes it.

    Raises:
        UserError: As `load` raises it.
    """
    architecture, weights = read_model(path)
    model = build_dual_tower(architecture)
    load_exactly(model, weights, source=str(path), architecture="the model that its config describes")
    folder = path if path.is_dir() and not (path / LAYOUT).is_file() else path.parent
    if folder.name == "checkpoints":
        folder = folder.parent
    return Source(
        name=folder.resolve().name,
        architecture=architecture,
        model=model.eval().requires_grad_(False),
        tokenizer=load_text_side(architecture),
        folder=folder,
    )


def _text(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def _section(markdown: str, title: str) -> str:
    """Return one second-level section without its heading."""
    for section in markdown.split("\n## ")[1:]:
        if section.startswith(f"{title}\n"):
            return section.removeprefix(f"{title}\n").strip() + "\n"
    return ""
