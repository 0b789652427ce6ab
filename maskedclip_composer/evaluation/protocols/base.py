"""What every protocol is given and what it returns."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import nn

from maskedclip_composer.evaluation.data import LabelledData
from maskedclip_composer.evaluation.decoded import DecodedSplit
from maskedclip_composer.evaluation.encoders.base import Encoder
from maskedclip_composer.evaluation.features import Features
from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.protocols.head import LinearHead
from maskedclip_composer.evaluation.tasks import TaskConfig


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One encoder on one task.

    Attributes:
        encoder: Never changed: what trains it, trains a copy.
        source: What it was loaded from.
        task: As its yaml says.
        data: The three splits.
        photographs: The same, decoded.
        features: Of the frozen encoder, extracted when first asked for.
        batch_size: Images per forward pass and process where nothing is trained.
        workers: Processes that load, per rank and loader.
    """

    encoder: Encoder
    source: str
    task: TaskConfig
    data: LabelledData
    photographs: dict[str, DecodedSplit]
    features: Features
    batch_size: int
    workers: int

    def val_roc(self, probabilities: Float[np.ndarray, "images classes"]) -> float:
        """Return the macro ROC on the validation split, which everything that is chosen is chosen by."""
        return classification_metrics(probabilities, self.data.val.one_hot, self.data.kind, trained=self.data.trained)[
            "roc"
        ]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a protocol makes of a problem.

    Attributes:
        probabilities: Of the test images, in the split's order.
        steps: Optimiser steps or solver iterations.
        val_roc: Macro ROC on validation, per epoch or candidate.
        details: What was chosen, and what else is worth knowing.
        network: The classifier with its best weights, where the encoder was trained too.
        precision: Composer's, that `network` scored the test images with.
        head: The classifier on the frozen encoder's features, where there is such a one.
    """

    probabilities: Float[np.ndarray, "images classes"]
    steps: int = 0
    val_roc: list[float] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    network: nn.Module | None = None
    precision: str = "fp32"
    head: LinearHead | None = None
