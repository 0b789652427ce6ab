"""Classes in words: one feature of the CLIP space for each, of all its prompts."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maskedclip_composer.errors import UserError
from maskedclip_composer.use.dual_tower import DualTower
from maskedclip_composer.use.tokenizer import Tokenizer

_MOST = 256
"""Prompts that are encoded at once: a class of a pack can have thousands."""


@torch.no_grad()
def class_features(
    model: DualTower, tokenizer: Tokenizer, prompts: Mapping[str, Sequence[str]]
) -> Float[Tensor, "classes dim"]:
    """Return the mean of the normalised features of each class's prompts, normalised again, on the CPU.

    (FLAIR does not normalise the mean, so that classes whose prompts agree weigh more.)

    Args:
        model: Trained with texts.
        tokenizer: Its own.
        prompts: Of each class, by its name.
    """
    found = []
    for texts in prompts.values():
        parts = [model.encode_text(**tokenizer(texts[at : at + _MOST])) for at in range(0, len(texts), _MOST)]
        found.append(F.normalize(torch.cat(parts).mean(dim=0), dim=-1))
    return torch.stack(found).cpu()


def check_classes(tokenizer: Tokenizer, prompts: Mapping[str, Sequence[str]]) -> None:
    """Refuse classes that the text encoder cannot tell apart, for all their words become the same tokens.

    Raises:
        UserError: Names two such classes.
    """
    seen: dict[frozenset[tuple[int, ...]], str] = {}
    for name, texts in prompts.items():
        rows = (tokenizer(text)["text_ids"][0].tolist() for text in texts)  # one by one: without padding
        ids = frozenset(tuple(row) for row in rows)
        if ids in seen:
            raise UserError(
                f"The classes {seen[ids]!r} and {name!r} are the same tokens to the text encoder: words that it does "
                "not know all look alike to it, and what is too long is cut.\nWrite one of them in other words, or "
                "shorten the template."
            )
        seen[ids] = name


def class_scores(
    image_features: Float[Tensor, "images dim"],
    text_features: Float[Tensor, "classes dim"],
    logit_scale: float,
    *,
    multilabel: bool = False,
) -> Float[Tensor, "images classes"]:
    """Return the softmax over the classes of the scaled cosines; the sigmoid of each where several may be true.

    A threshold of 0.5 means nothing for the sigmoid; the order does.

    Args:
        image_features: L2-normalised.
        text_features: L2-normalised.
        logit_scale: The learnt inverse temperature.
        multilabel: Whether each class is scored for itself.
    """
    logits = logit_scale * (image_features @ text_features.T)
    return logits.sigmoid() if multilabel else logits.softmax(dim=1)
