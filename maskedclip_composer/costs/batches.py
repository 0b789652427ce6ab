"""A batch of the shapes that a run's loader makes, of made-up content."""

from typing import Any, cast

import torch
from torch import Tensor

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.types import Batch

# Made up: tokens of a word, words from one entity to the next, tokens of a sentence.
_WORD, _ENTITY, _SENTENCE = 2, 3, 16


def made_up_batch(config: TrainConfig, grid: tuple[int, int], ranks: int = 1) -> Batch:
    """Return the device batch of one of `ranks` ranks.

    Every pair has a text and a label of its own, of `data.max_tokens` tokens: what a run has at most. Images are not
    filled, which costs address space alone.

    Args:
        config: The run.
        grid: Rows and columns of patches of an image.
        ranks: Deal the batch sizes over so many.
    """
    generator = torch.Generator().manual_seed(0)
    batch: dict[str, dict[str, Tensor]] = {}
    first = 0
    for name, stream in config.data.streams().items():
        count = stream.batch_size // ranks
        batch[name] = _images(config, count, first, grid, generator)
        batch[name] |= _crops(config, count, grid, generator)
        if name == "paired":
            batch[name] |= _texts(config, count, generator)
        first += count
    return cast(Batch, batch)


def _images(
    config: TrainConfig, count: int, first: int, grid: tuple[int, int], generator: torch.Generator
) -> dict[str, Tensor]:
    size = config.data.image_size
    return {
        "image": torch.empty(count, 3, size, size, dtype=torch.uint8),
        "noise": torch.rand(count, grid[0] * grid[1], generator=generator),
        "sample_id": torch.arange(first, first + count),
    }


def _texts(config: TrainConfig, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    tokens = config.data.max_tokens
    place = torch.arange(tokens).expand(count, tokens)
    special = (place == 0) | (place == tokens - 1)
    texts: dict[str, Any] = {
        "label": torch.arange(count),
        "text_ids": torch.zeros(count, tokens, dtype=torch.int64),
        "text_mask": torch.ones(count, tokens, dtype=torch.int64),
        "text_index": torch.arange(count),
    }
    if config.data.entities is not None:
        word = (place - 1) // _WORD
        texts["text_word"] = word.masked_fill(special, -1)
        texts["text_entity"] = word.masked_fill(special | (word % _ENTITY != 0), -1)
        texts["text_noise"] = torch.rand(count, tokens, generator=generator)
    if config.data.sentences is not None:
        sentence = ((place - 1) // _SENTENCE).clamp(max=config.data.sentences.max_sentences - 1)
        texts["text_sentence"] = sentence.masked_fill(special, -1)
    return texts


def _crops(config: TrainConfig, count: int, grid: tuple[int, int], generator: torch.Generator) -> dict[str, Tensor]:
    crops, size = config.data.crops, config.data.image_size
    if crops is None:
        return {}
    share = crops.mask_probability * (crops.mask_min + crops.mask_max) / 2
    views = (count, crops.global_count, grid[0] * grid[1])
    return {
        "global_crops": torch.empty(count, crops.global_count - 1, 3, size, size, dtype=torch.uint8),
        "local_crops": torch.empty(count, crops.local_count, 3, crops.local_size, crops.local_size, dtype=torch.uint8),
        "block_mask": torch.rand(views, generator=generator) < share,
    }
