"""Keeps the text encoder's config and tokenizer with the run, whose weights mean nothing without them."""

import shutil
from pathlib import Path

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from maskedclip_composer.algorithms.ema_teacher import unwrap
from maskedclip_composer.callbacks.atomic import publish
from maskedclip_composer.models.text import FOLDER, save_text_side


class TextSide(Callback):
    """Write `text_encoder/` to the run's folder when training starts, once.

    Args:
        folder: The run's.
        tokenizer: The text encoder's own.
    """

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase):
        self.folder = folder / FOLDER
        self.tokenizer = tokenizer

    def fit_start(self, state: State, logger: Logger) -> None:
        """Write the folder aside, then rename it."""
        if dist.get_global_rank() != 0 or self.folder.exists():
            return
        encoder = unwrap(state.model).net.text_encoder
        assert encoder is not None
        aside = self.folder.with_name(f".{FOLDER}.partial")
        shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed here
        save_text_side(encoder, self.tokenizer, aside)
        publish(aside, self.folder)
