"""The encoder with a linear head, as fine-tuning trains it."""

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from composer.models import ComposerModel
from jaxtyping import Float, Int
from timm.data.random_erasing import RandomErasing
from timm.layers.drop import DropPath
from timm.models import VisionTransformer
from timm.optim import param_groups_layer_decay  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torchmetrics import Metric

from maskedclip_composer.evaluation.config import FinetuneConfig
from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.export.encoder import LoadedEncoder

METRIC = "MacroROC"


def build_classifier(vit: VisionTransformer, num_classes: int, drop_path: float) -> VisionTransformer:
    """Copy the encoder and give it MAE's fine-tuning head.

    Mean of the patch tokens without the class token, a new norm after the mean in place of the encoder's final norm,
    and a linear layer that starts near zero (truncated normal, 2e-5), so that all classes start equally likely.
    Everything learns, also the positions. Equal to timm's model with `global_pool="avg"` and the encoder's weights.

    Args:
        vit: The pre-trained encoder, left as it is.
        num_classes: Outputs of the head.
        drop_path: Stochastic depth of the last block, rising linearly from 0 in the first.
    """
    classifier = copy.deepcopy(vit)
    final_norm = classifier.norm
    assert isinstance(final_norm, nn.LayerNorm)
    classifier.norm = nn.Identity()
    classifier.fc_norm = nn.LayerNorm(vit.embed_dim, eps=final_norm.eps)
    classifier.reset_classifier(num_classes, global_pool="avg")
    classifier.head = nn.Linear(vit.embed_dim, num_classes)
    nn.init.trunc_normal_(classifier.head.weight, std=2e-5)
    nn.init.zeros_(classifier.head.bias)
    rates = torch.linspace(0, drop_path, len(classifier.blocks)).tolist()
    for block, rate in zip(classifier.blocks, rates, strict=True):
        block.drop_path1 = DropPath(rate) if rate else nn.Identity()
        block.drop_path2 = DropPath(rate) if rate else nn.Identity()
    return classifier.requires_grad_(True)


def build_optimizer(vit: VisionTransformer, config: FinetuneConfig) -> torch.optim.AdamW:
    """AdamW whose learning rate falls by `layer_decay` per layer below the head; scales and biases do not decay."""
    groups = param_groups_layer_decay(
        vit,
        weight_decay=config.weight_decay,
        no_weight_decay_list=vit.no_weight_decay(),
        layer_decay=config.layer_decay,
    )
    # torch's AdamW does not know timm's lr_scale.
    return torch.optim.AdamW([group | {"lr": config.lr * group["lr_scale"]} for group in groups], lr=config.lr)


class ImageClassifier(ComposerModel):
    """Classification of uint8 photographs; normalisation and erasing happen on the device.

    A batch is {"image": [images, 3, size, size] uint8, "target": [images], "index": [images]}.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vit: VisionTransformer, encoder: LoadedEncoder, config: FinetuneConfig):
        super().__init__()
        self.vit = vit
        self.num_classes = vit.num_classes
        self.label_smoothing = config.label_smoothing
        self.random_erasing = config.random_erasing
        self.register_buffer("mean", torch.tensor(encoder.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(encoder.std).view(-1, 1, 1), persistent=False)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return logits [images, classes], float32 also under autocast: half precision would tie close scores."""
        images = (batch["image"].float() / 255 - self.mean) / self.std
        if self.training and self.random_erasing:
            images = RandomErasing(self.random_erasing, mode="pixel", device=str(images.device))(images)
        tokens = self.vit.forward_features(images)
        with torch.autocast(tokens.device.type, enabled=False):
            return self.vit.forward_head(tokens.float())

    def loss(self, outputs: Tensor, batch: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Return the cross-entropy with smoothed labels, in nats."""
        return F.cross_entropy(outputs, batch["target"], label_smoothing=self.label_smoothing)

    def eval_forward(self, batch: dict[str, Tensor], outputs: Tensor | None = None) -> Tensor:
        """Return logits [images, classes]."""
        return self.forward(batch) if outputs is None else outputs

    def get_metrics(self, is_train: bool) -> dict[str, Metric]:
        """Collect scores in evaluation only."""
        return {} if is_train else {METRIC: ScoreCollector()}

    def update_metric(self, batch: dict[str, Tensor], outputs: Tensor, metric: Metric) -> None:
        """Hand a batch's probabilities to the collector."""
        metric.update(outputs.softmax(dim=1), batch["target"], batch["index"])


class ScoreCollector(Metric):
    """All ranks' probabilities in the data set's order; the value is the macro ROC.

    `scores` holds the probabilities and targets of the last `compute`: Composer's loggers take only single numbers.
    """

    full_state_update = False
    probabilities: list[Tensor]
    targets: list[Tensor]
    indices: list[Tensor]

    def __init__(self):
        super().__init__()
        for state in ("probabilities", "targets", "indices"):
            self.add_state(state, default=[], dist_reduce_fx="cat")
        self.scores: tuple[Float[np.ndarray, "images classes"], Int[np.ndarray, " images"]] | None = None

    def update(self, probabilities: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Add a batch: [images, classes], [images] and the images' places in the data set [images]."""
        self.probabilities.append(probabilities)
        self.targets.append(targets)
        self.indices.append(indices)

    def compute(self) -> Tensor:
        """Order the scores and return their macro ROC.

        Raises:
            RuntimeError: An image was scored twice or not at all.
        """
        probabilities, targets, indices = (
            (torch.cat(state) if isinstance(state, list) else state).cpu().numpy()
            for state in (self.probabilities, self.targets, self.indices)
        )
        order = np.argsort(indices)
        if not np.array_equal(indices[order], np.arange(len(indices))):
            raise RuntimeError("an image was scored twice or not at all; the sampler and Composer disagree")
        self.scores = (probabilities[order], targets[order])
        return torch.tensor(classification_metrics(*self.scores)["roc"])
