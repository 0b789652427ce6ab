"""The encoder with a linear head, as fine-tuning trains it."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from composer.models import ComposerModel
from jaxtyping import Bool, Float
from timm.data.random_erasing import RandomErasing
from timm.optim import param_groups_layer_decay  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torchmetrics import Metric

from maskedclip_composer.evaluation.encoders.base import Classifier, Encoder
from maskedclip_composer.evaluation.kinds import TargetKind
from maskedclip_composer.evaluation.metrics import Metrics, classification_metrics
from maskedclip_composer.evaluation.protocols.config import FinetuneConfig

METRIC = "Selection"


def build_optimizer(network: nn.Module, config: FinetuneConfig) -> torch.optim.AdamW:
    """AdamW whose learning rate falls by `layer_decay` per layer below the head; scales and biases do not decay."""
    groups = param_groups_layer_decay(
        network,
        weight_decay=config.weight_decay,
        no_weight_decay_list=cast(Classifier, network).no_weight_decay(),  # pyright: ignore[reportArgumentType]  a set
        layer_decay=config.layer_decay,
    )
    # torch's AdamW does not know timm's lr_scale.
    return torch.optim.AdamW([group | {"lr": config.lr * group["lr_scale"]} for group in groups], lr=config.lr)


class ImageClassifier(ComposerModel):
    """Classification of uint8 photographs; normalisation and erasing happen on the device.

    A batch is {"image": [images, 3, size, size] uint8, "target": [images, classes] bool, "index": [images]}.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, encoder: Encoder, config: FinetuneConfig, collector: "Callable[[], ScoreCollector]"
    ):
        super().__init__()
        self.network = network
        self.several = collector().kind == "multilabel"
        self.collector = collector
        self.label_smoothing = config.label_smoothing
        self.random_erasing = config.random_erasing
        self.register_buffer("mean", torch.tensor(encoder.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(encoder.std).view(-1, 1, 1), persistent=False)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return logits [images, classes], float32 also under autocast: half precision would tie close scores."""
        images = (batch["image"].float() / 255 - self.mean) / self.std
        if self.training and self.random_erasing:
            images = RandomErasing(self.random_erasing, mode="pixel", device=str(images.device))(images)
        network = cast(Classifier, self.network)
        features = network.forward_features(images)
        with torch.autocast(features.device.type, enabled=False):
            return network.forward_head(features.float())

    def loss(self, outputs: Tensor, batch: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Return the cross-entropy with smoothed labels, in nats: over the classes, or the mean over single labels."""
        target = batch["target"].float()
        if self.several:
            smoothed = target * (1 - self.label_smoothing) + self.label_smoothing / 2
            return F.binary_cross_entropy_with_logits(outputs, smoothed)
        return F.cross_entropy(outputs, target, label_smoothing=self.label_smoothing)

    def eval_forward(self, batch: dict[str, Tensor], outputs: Tensor | None = None) -> Tensor:
        """Return logits [images, classes]."""
        return self.forward(batch) if outputs is None else outputs

    def get_metrics(self, is_train: bool) -> dict[str, Metric]:
        """Collect scores in evaluation only."""
        return {} if is_train else {METRIC: self.collector()}

    def update_metric(self, batch: dict[str, Tensor], outputs: Tensor, metric: Metric) -> None:
        """Hand a batch's probabilities to the collector."""
        probabilities = outputs.sigmoid() if self.several else outputs.softmax(dim=1)
        metric.update(probabilities, batch["target"], batch["index"])


class ScoreCollector(Metric):
    """All ranks' probabilities in the data set's order; the value is what the best epoch is chosen by.

    `scores` holds the probabilities and targets of the last `compute`, `metrics` all of their metrics: Composer's
    loggers take only single numbers.
    """

    full_state_update = False
    probabilities: list[Tensor]
    targets: list[Tensor]
    indices: list[Tensor]

    def __init__(self, kind: TargetKind, trained: Bool[np.ndarray, " classes"], select_by: str):
        super().__init__()
        for state in ("probabilities", "targets", "indices"):
            self.add_state(state, default=[], dist_reduce_fx="cat")
        self.kind: TargetKind = kind
        self.trained = trained
        self.select_by = select_by
        self.scores: tuple[Float[np.ndarray, "images classes"], Bool[np.ndarray, "images classes"]] | None = None
        self.metrics: Metrics | None = None

    def update(self, probabilities: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Add a batch: twice [images, classes], and the images' places in the data set [images]."""
        self.probabilities.append(probabilities)
        self.targets.append(targets)
        self.indices.append(indices)

    def compute(self) -> Tensor:
        """Order the scores and return what they are selected by.

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
        self.metrics = classification_metrics(*self.scores, self.kind, trained=self.trained)
        if self.select_by == "roc":
            return torch.tensor(self.metrics["roc"])
        return torch.tensor((self.metrics["f1"] + self.metrics["roc"] + self.metrics["kappa"]) / 3)
