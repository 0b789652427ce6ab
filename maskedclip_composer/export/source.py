"""The model that is exported, with what its run says about it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from maskedclip_composer.cards.model_terms import terms_page
from maskedclip_composer.export.encoder import NEWEST
from maskedclip_composer.export.exact import load_exactly
from maskedclip_composer.export.sharded import LAYOUT
from maskedclip_composer.use.architecture import Architecture
from maskedclip_composer.use.dual_tower import DualTower
from maskedclip_composer.use.load import build_dual_tower, load_text_side, read_model
from maskedclip_composer.use.tokenizer import Tokenizer

CARD, DATA_CARD, TERMS = "model_card.md", "data_card.md", "TERMS.md"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model to export.

    Attributes:
        name: Of the folder, for people.
        architecture: As its run describes it.
        model: On the CPU, in evaluation mode.
        tokenizer: None for a model that was trained without texts.
        folder: The run's, the exported one, or that of the file.
        checkpoint: Name of the file, or folder of shards, with the weights; None of an encoder file or an export.
    """

    name: str
    architecture: Architecture
    model: DualTower
    tokenizer: Tokenizer | None
    folder: Path
    checkpoint: str | None

    @cached_property
    def is_encoder_of_run(self) -> bool:
        """Whether its image encoder is that of the run's encoder.safetensors, of which the run's model card tells."""
        try:
            stored = load_file(self.folder / "encoder.safetensors")
        except (OSError, SafetensorError):
            return False
        own = self.model.branch.image_encoder.vit.state_dict()
        return stored.keys() == own.keys() and all(
            torch.equal(value, stored[name].to(value.dtype)) for name, value in own.items()
        )

    @property
    def has_card(self) -> bool:
        """Whether the run has a model card, be it of these weights or of others."""
        return (self.folder / CARD).is_file()

    @property
    def card(self) -> str | None:
        """The run's model card; None where it has none, or one that is of other weights."""
        return _text(self.folder / CARD) if self.has_card and self.is_encoder_of_run else None

    @property
    def data_card(self) -> str | None:
        """The card of all its training data, which the model card names; None where there is none."""
        return _text(self.folder / DATA_CARD)

    @property
    def terms(self) -> str | None:
        """The terms of the training data and of the starting weights, as Markdown; None of what is no run's."""
        if (earlier := _text(self.folder / TERMS)) is not None:  # of an export
            return earlier
        return terms_page(self.folder) if (self.folder / "config.yaml").is_file() else None


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
    folder, checkpoint = _place(path)
    return Source(
        name=folder.resolve().name,
        architecture=architecture,
        model=model.eval().requires_grad_(False),
        tokenizer=load_text_side(architecture),
        folder=folder,
        checkpoint=checkpoint,
    )


def _place(path: Path) -> tuple[Path, str | None]:
    """Return the folder that tells of a source, and the name of the checkpoint that `read_model` takes of it."""
    if path.suffix == ".pt" or (path / LAYOUT).is_file():
        return path.parent.parent, path.resolve().name
    if (path / "config.yaml").is_file() and (path / NEWEST).exists():
        return path, (path / NEWEST).resolve().name
    return (path if path.is_dir() else path.parent), None


def _text(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None
