"""Matching of patches with sentences by optimal transport, in the style of MLIP."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskedclip_composer.distributed import gather, gather_with_gradient, max_over_ranks
from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.transport import patch_sentence_alignment, patch_sentence_loss, transport_similarity
from maskedclip_composer.models.views import Views
from maskedclip_composer.objectives.base import Objective, ObjectiveConfig, Parts
from maskedclip_composer.objectives.two_tower import projection, unit


@dataclass(frozen=True, kw_only=True)
class PatchSentenceConfig(ObjectiveConfig):
    """Transport between visible patches and sentences.

    Attributes:
        mode: contrast tells an image's report among all reports; align draws an image to its own report alone, which
            needs another objective beside it, or all features become equal.
        embed_dim: Width of the space in which patches and sentences are compared.
        epsilon: Strength of the entropy in the transport.
        iterations: Rounds of Sinkhorn's algorithm.
        temperature: Of the contrast.
    """

    key: ClassVar[str] = "patch_sentence"
    needs: ClassVar[frozenset[str]] = frozenset({"paired", "sentences"})

    mode: Literal["contrast", "align"] = "contrast"
    embed_dim: int = 256
    epsilon: float = 0.1
    iterations: int = 50
    temperature: float = 0.07

    def __post_init__(self):
        super().__post_init__()
        for name in ("embed_dim", "epsilon", "iterations", "temperature"):
            if not getattr(self, name) > 0:
                raise UserError(f"objectives.patch_sentence.{name}={getattr(self, name)} is not positive.")

    def build(self, parts: Parts) -> Objective:
        """Build W_p and W_s."""
        transport = Transport(self, parts.image_encoder.embed_dim, parts.text_dim)
        modes = {"contrast": PatchSentenceContrast, "align": PatchSentenceAlignment}
        return modes[self.mode](self, transport)


class Transport(nn.Module):
    """W_p, W_s, and the transport between every image's visible patches and every report's sentences."""

    def __init__(self, config: PatchSentenceConfig, image_dim: int, text_dim: int):
        super().__init__()
        self.epsilon, self.iterations = config.epsilon, config.iterations
        self.patch_projection = projection(image_dim, config.embed_dim)
        self.sentence_projection = projection(text_dim, config.embed_dim)

    def forward(self, views: Views) -> Tensor:
        """Return similarities [pairs, pairs] of all ranks' images and reports.

        Each rank solves the problems of its own images with the reports of all ranks, and the rows are gathered: the
        loss is that of one process without solving a problem twice.
        """
        patches = unit(self.patch_projection(views.masked[: views.num_pairs, 1:]))
        sentence_of_token = views.of_texts("text_sentence")
        count = int(max_over_ranks(sentence_of_token.max() + 1))
        means, mask = mean_by_sentence(views.text_tokens, sentence_of_token, count)
        sentences = unit(self.sentence_projection(means))
        views.show("patch_sentence", self._heat(views, patches, sentences, mask))
        similarity = transport_similarity(
            patches,
            gather_with_gradient(sentences),
            gather(mask),
            epsilon=self.epsilon,
            iterations=self.iterations,
        )
        return gather_with_gradient(similarity)

    @torch.no_grad()
    def _heat(self, views: Views, patches: Tensor, sentences: Tensor, mask: Tensor) -> Tensor:
        """Return each visible patch's cosine with the nearest of its own sentences, [pairs, patches]; NaN elsewhere."""
        cosine = torch.einsum("iad,ibd->iab", patches, sentences)
        nearest = cosine.masked_fill(mask[:, None] == 0, -1).amax(dim=2)
        rows = slice(views.num_pairs)
        heat = torch.full_like(views.mask.mask[rows], torch.nan, dtype=nearest.dtype)
        return heat.scatter(1, views.mask.ids_keep[rows], nearest)


class PatchSentenceContrast(Objective):
    """Tell each image's report by their transport, and each report's image, over the pairs of all ranks."""

    loss = staticmethod(patch_sentence_loss)

    def __init__(self, config: PatchSentenceConfig, transport: Transport):
        super().__init__(config.weight)
        self.temperature = config.temperature
        self.transport = transport

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return logits [pairs, pairs] and labels [pairs] of all ranks' pairs."""
        return {"logits": self.transport(views) / self.temperature, "labels": gather(views.labels)}

    def diagnose(self, **outputs: Tensor) -> dict[str, Tensor]:
        """Return how much more similar an image is to its report than to others, and the share that finds it."""
        labels, similarity = outputs["labels"], outputs["logits"] * self.temperature
        positive = labels[:, None] == labels[None, :]
        metrics = {"retrieval_at_1": (labels[similarity.argmax(dim=1)] == labels).float().mean()}
        if not positive.all():
            metrics["margin"] = similarity[positive].mean() - similarity[~positive].mean()
        return metrics


class PatchSentenceAlignment(Objective):
    """Draw the patches of each image to the sentences of its own report."""

    loss = staticmethod(patch_sentence_alignment)

    def __init__(self, config: PatchSentenceConfig, transport: Transport):
        super().__init__(config.weight)
        self.transport = transport

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return similarities [pairs, pairs] of all ranks' pairs."""
        return {"similarity": self.transport(views)}


def mean_by_sentence(tokens: Tensor, sentence_of_token: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Average the tokens of each sentence.

    Args:
        tokens: [texts, tokens, dim].
        sentence_of_token: [texts, tokens] int64, 0 to count - 1; -1 on special tokens and padding.
        count: Sentences to return.

    Returns:
        Means [texts, count, dim], zero for sentences that a text has not, and a mask [texts, count] of those it has.
        A text without any token but special ones has one sentence, of zeros.
    """
    member = F.one_hot(sentence_of_token + 1, count + 1)[:, :, 1:].to(tokens.dtype)
    sizes = member.sum(dim=1)
    means = torch.einsum("tlb,tld->tbd", member, tokens) / sizes.clamp(min=1)[:, :, None]
    mask = (sizes > 0).to(tokens.dtype)
    mask[:, 0] = 1  # a report that begins a problem without mass would have no plan
    return means, mask.float()
