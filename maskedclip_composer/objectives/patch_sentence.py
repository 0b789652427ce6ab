"""Matching of patches with sentences by optimal transport, in the style of MLIP."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskedclip_composer.distributed import gather, gather_with_gradient, max_over_ranks
from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.transport import (
    own_transport_similarity,
    patch_sentence_alignment,
    patch_sentence_loss,
    transport_similarity,
)
from maskedclip_composer.models.views import Views
from maskedclip_composer.objectives.base import Objective, ObjectiveConfig, Parts
from maskedclip_composer.objectives.health import nearest_of_texts
from maskedclip_composer.objectives.two_tower import projection, unit


@dataclass(frozen=True, kw_only=True)
class PatchSentenceConfig(ObjectiveConfig):
    """Transport between visible patches and sentences.

    Attributes:
        mode: contrast tells an image's report among all reports; align draws an image to its own report alone, which
            needs a contrastive objective beside it, or all features become equal.
        embed_dim: Width of the space in which patches and sentences are compared.
        epsilon: Strength of the entropy in the transport.
        iterations: Most rounds of Sinkhorn's algorithm.
        temperature: Of the contrast; align has none.
    """

    key: ClassVar[str] = "patch_sentence"
    needs: ClassVar[frozenset[str]] = frozenset({"paired", "sentences"})
    masks_at_random: ClassVar[bool] = True

    mode: Literal["contrast", "align"] = "contrast"
    embed_dim: int = 256
    epsilon: float = 0.1
    iterations: int = 50
    temperature: float = 0.07

    @property
    def needs_joint_space(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Alone, align has no negatives."""
        return self.mode == "align"

    def __post_init__(self):
        super().__post_init__()
        for name in ("embed_dim", "epsilon", "iterations", "temperature"):
            value, default = getattr(self, name), getattr(PatchSentenceConfig, name)
            if not 0 < value < math.inf:
                raise UserError(f"objectives.{self.key}.{name}={value} is not positive.\nThe default is {default}.")

    def build(self, parts: Parts) -> Objective:
        """Build W_p and W_s."""
        modes = {"contrast": PatchSentenceContrast, "align": PatchSentenceAlignment}
        return modes[self.mode](self, UnitHeads(self.embed_dim, parts.image_encoder.embed_dim, parts.text_dim))


class UnitHeads(nn.Module):
    """W_p and W_s: visible patches and sentences in the space in which they are compared."""

    def __init__(self, embed_dim: int, image_dim: int, text_dim: int):
        super().__init__()
        self.patch_projection = projection(image_dim, embed_dim)
        self.sentence_projection = projection(text_dim, embed_dim)

    def forward(self, views: Views) -> tuple[Tensor, Tensor, Tensor]:
        """Return L2-normalised features of this rank's pairs, and leave a heat map of their cosines.

        Returns:
            Visible patches [pairs, kept, embed_dim], sentences [pairs, sentences, embed_dim] and their mask [pairs,
            sentences], 0 on padding; as many sentences as the report of any rank that has most.
        """
        patches = unit(self.patch_projection(views.masked[: views.num_pairs, 1:]))
        sentence_of_token = views.of_texts("text_sentence")
        most = int(max_over_ranks(sentence_of_token.max() + 1))
        means, mask = mean_by_sentence(views.text_tokens, sentence_of_token, max(1, most))
        sentences = unit(self.sentence_projection(means))
        ids_keep, num_patches = views.mask.ids_keep[: views.num_pairs], views.mask.mask.shape[1]
        views.show("patch_sentence", heat_map(patches, sentences, mask, ids_keep, num_patches))
        return patches, sentences, mask


class PatchSentenceContrast(Objective):
    """Tell each image's report by their transport, and each report's image, over the pairs of all ranks."""

    loss = staticmethod(patch_sentence_loss)

    def __init__(self, config: PatchSentenceConfig, heads: UnitHeads):
        super().__init__(config.weight)
        self.epsilon, self.iterations, self.temperature = config.epsilon, config.iterations, config.temperature
        self.heads = heads

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return logits [pairs, pairs] and labels [pairs] of all ranks' pairs.

        Each rank solves the problems of its own images with the reports of all ranks, and the rows are gathered: the
        loss is that of one process without solving a problem twice.
        """
        patches, sentences, mask = self.heads(views)
        similarity = transport_similarity(
            patches,
            gather_with_gradient(sentences),
            gather(mask),
            epsilon=self.epsilon,
            iterations=self.iterations,
        )
        return {"logits": gather_with_gradient(similarity) / self.temperature, "labels": gather(views.labels)}

    def diagnose(self, **outputs: Tensor) -> dict[str, Tensor]:
        """Return how much more similar an image is to its report than to others, and how often either finds it."""
        labels, similarity = outputs["labels"], outputs["logits"] * self.temperature
        positive = labels[:, None] == labels[None, :]
        metrics = {"retrieval_at_1": (labels[similarity.argmax(dim=1)] == labels).float().mean()}
        metrics |= nearest_of_texts(similarity, labels)
        if not positive.all():
            metrics["margin"] = similarity[positive].mean() - similarity[~positive].mean()
        return metrics


class PatchSentenceAlignment(Objective):
    """Draw the patches of each image to the sentences of its own report; ranks need nothing of each other."""

    loss = staticmethod(patch_sentence_alignment)

    def __init__(self, config: PatchSentenceConfig, heads: UnitHeads):
        super().__init__(config.weight)
        self.epsilon, self.iterations = config.epsilon, config.iterations
        self.heads = heads

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return similarities [pairs] of this rank's pairs."""
        similarity = own_transport_similarity(*self.heads(views), epsilon=self.epsilon, iterations=self.iterations)
        return {"similarity": similarity}


def mean_by_sentence(tokens: Tensor, sentence_of_token: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Average the tokens of each sentence; a text without a letter has no sentence, its [CLS] stands in for one.

    Args:
        tokens: [texts, tokens, dim].
        sentence_of_token: [texts, tokens] int64, 0 to count - 1; -1 on special tokens and padding.
        count: Sentences to return, at least 1.

    Returns:
        Means [texts, count, dim], zero for sentences that a text has not, and a float32 mask [texts, count] of those
        it has.
    """
    has_none = (sentence_of_token < 0).all(dim=1, keepdim=True)
    is_first = torch.arange(sentence_of_token.shape[1], device=tokens.device) == 0
    member = F.one_hot(sentence_of_token.masked_fill(has_none & is_first, 0) + 1, count + 1)[:, :, 1:].float()
    sizes = member.sum(dim=1)
    means = torch.einsum("tlb,tld->tbd", member, tokens.float()) / sizes.clamp(min=1)[:, :, None]
    return means, (sizes > 0).float()


@torch.no_grad()
def heat_map(patches: Tensor, sentences: Tensor, mask: Tensor, ids_keep: Tensor, num_patches: int) -> Tensor:
    """Return each visible patch's cosine with the nearest of its image's own sentences, NaN on removed patches.

    MLIP's figure shows the cosine with one prompt; here every sentence of the report may claim a patch.

    Args:
        patches: [pairs, kept, embed_dim], L2-normalised.
        sentences: [pairs, sentences, embed_dim], L2-normalised.
        mask: [pairs, sentences], 1 for a sentence, 0 for padding.
        ids_keep: [pairs, kept] int64, where the patches belong.
        num_patches: Visible and removed.

    Returns:
        [pairs, num_patches].
    """
    cosine = torch.einsum("iad,ibd->iab", patches, sentences).masked_fill(mask[:, None] == 0, -1)
    nearest = cosine.amax(dim=2)
    return nearest.new_full((len(nearest), num_patches), torch.nan).scatter(1, ids_keep, nearest)
