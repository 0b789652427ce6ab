"""A trained classifier as one file: encoder, head, and all that must be known to use it on a photograph."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.architecture import build_encoder
from maskedclip_composer.evaluation.encoders.base import Classifier, Encoder
from maskedclip_composer.evaluation.kinds import TargetKind
from maskedclip_composer.evaluation.protocols.head import LinearHead
from maskedclip_composer.export.exact import load_exactly

FORMAT = "maskedclip-classifier-1"
CLASSIFIER_FILE = "classifier.safetensors"
_NETWORK, _ENCODER, _HEAD = "network.", "encoder.", "head."


@dataclass(frozen=True, kw_only=True)
class ClassifierFacts:
    """What a classifier's file says of it.

    Attributes:
        architecture: Of the encoder (`encoders/architecture.py`).
        image_size: Side of the square input in pixels.
        mean: Per channel, in units of 0 to 1; images are normalised with it.
        std: Likewise.
        pooling: How an image's feature comes about.
        kind: nominal, ordinal or multilabel.
        classes: Codes, in the order of the probabilities.
        names: What they are called, in the same order.
        trained_by: finetune or linear_probe.
        precision: Composer's precision that the test photographs were scored with.
        rule: How a class is predicted from the probabilities.
        selection: How the weights were chosen.
        recipe: How photographs were prepared for training, and are to be for use; None: not at all.
        recipe_source: Where that is known from.
        task: {name, title, source}.
        protocol: {name, title, source}.
        seed: Of the training.
        amount: Of labels, such as 10%.
        train_images: Photographs that it was trained on.
        encoder: {name, source, description, sha256} of the encoder that training started from, without folders.
        val_roc: Macro ROC on validation of the chosen weights.
        test: Metrics on the test photographs; NaN is null.
        made_with: Versions and commit.
    """

    architecture: dict[str, Any]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pooling: str
    kind: TargetKind
    classes: tuple[str, ...]
    names: tuple[str, ...]
    trained_by: str
    precision: str
    rule: str
    selection: str
    recipe: Recipe | None
    recipe_source: str
    task: dict[str, str]
    protocol: dict[str, str]
    seed: int
    amount: str
    train_images: int
    encoder: dict[str, str]
    val_roc: float | None = None
    test: dict[str, Any] = field(default_factory=dict)
    made_with: dict[str, Any] = field(default_factory=dict)


class TrainedClassifier:
    """A classifier in use.

    Args:
        facts: What its file says.
        encoder: With its weights, for a head of frozen features.
        head: Of those; None where the encoder was trained too.
        network: The encoder with its head; None otherwise.
        device: Where it computes.
    """

    def __init__(
        self,
        facts: ClassifierFacts,
        *,
        encoder: Encoder,
        head: LinearHead | None,
        network: nn.Module | None,
        device: str | torch.device = "cpu",
    ):
        self.facts = facts
        self._encoder, self._head = encoder, head
        module = encoder.module if network is None else network
        self._network = module.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)
        self._mean = torch.tensor(facts.mean, device=device).view(-1, 1, 1)
        self._std = torch.tensor(facts.std, device=device).view(-1, 1, 1)

    @torch.no_grad()
    def probabilities(self, images: UInt8[Tensor, "images 3 size size"]) -> Float[np.ndarray, "images classes"]:
        """Return the probability of each class in float32, computed as the evaluation computes it."""
        normalised = (images.to(self.device).float() / 255 - self._mean) / self._std
        if self._head is not None:
            features = self._encoder.features(normalised).float().cpu().numpy()
            return self._head.probabilities(features).astype(np.float32)
        network = cast(Classifier, self._network)
        halved = self.device.type == "cuda" and self.facts.precision.startswith("amp_")
        dtype = torch.float16 if self.facts.precision == "amp_fp16" else torch.bfloat16
        with torch.autocast(self.device.type, dtype=dtype, enabled=halved):
            features = network.forward_features(normalised)
        logits = network.forward_head(features.float())
        several = self.facts.kind == "multilabel"
        return (logits.sigmoid() if several else logits.softmax(dim=1)).float().cpu().numpy()


def save_classifier(
    path: Path, facts: ClassifierFacts, *, encoder: Encoder, head: LinearHead | None, network: nn.Module | None
) -> None:
    """Write a classifier whole, encoder included; it needs no other file to be used.

    Args:
        path: A `.safetensors` file; its folder is created.
        facts: All that is to be known of it.
        encoder: The frozen one, where there is a `head`.
        head: Of its features.
        network: The encoder with its head, where both were trained.
    """
    if head is not None:
        weights = {f"{_ENCODER}{key}": value for key, value in encoder.module.state_dict().items()}
        weights |= {f"{_HEAD}weight": torch.tensor(head.weight), f"{_HEAD}bias": torch.tensor(head.bias)}
    else:
        assert network is not None
        weights = {f"{_NETWORK}{key}": value for key, value in network.state_dict().items()}
    plain = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    # Not save_file, whose files are for their owner's eyes alone (safetensors 0.5).
    write_whole(path, save(plain, {"format": FORMAT, "classifier": json.dumps(asdict(facts))}))


def load_classifier(source: Path | str, *, device: str | torch.device = "cpu") -> TrainedClassifier:
    """Read a classifier that `save_classifier` wrote.

    Args:
        source: The file, or the folder with its `classifier.safetensors`.
        device: Where it is to compute.

    Raises:
        UserError: It is absent, damaged, of another kind, or its weights are not exactly those of its architecture.
    """
    path = Path(source)
    path = path / CLASSIFIER_FILE if path.is_dir() else path
    facts, weights = _read(path)
    encoder = build_encoder(facts.architecture, mean=facts.mean, std=facts.std, description=str(path))

    def fill(module: nn.Module, prefix: str) -> None:
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        load_exactly(module, own, source=str(path), architecture="the architecture that it names")

    if f"{_HEAD}weight" not in weights:
        network = encoder.classifier(len(facts.classes), 0.0)
        fill(network, _NETWORK)
        return TrainedClassifier(facts, encoder=encoder, head=None, network=network, device=device)
    fill(encoder.module, _ENCODER)
    head = LinearHead(
        weight=weights[f"{_HEAD}weight"].numpy(),
        bias=weights[f"{_HEAD}bias"].numpy(),
        several=facts.kind == "multilabel",
    )
    return TrainedClassifier(facts, encoder=encoder, head=head, network=None, device=device)


def _read(path: Path) -> tuple[ClassifierFacts, dict[str, Tensor]]:
    if not path.is_file():
        raise UserError(
            f"No classifier at {path}.\n"
            "Give a folder models/TASK/PROTOCOL/AMOUNT/ENCODER/seedN of `evaluate.py … save_models=true`, or the "
            f"{CLASSIFIER_FILE} in it."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UserError(_other_kind(path, metadata))
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  safe_open is no mapping
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}).\nCopy it again.") from error
    try:
        content = json.loads(metadata["classifier"])
        recipe = content["recipe"]
        tuples = {key: tuple(content[key]) for key in ("mean", "std", "classes", "names")}
        return ClassifierFacts(**content | tuples | {"recipe": None if recipe is None else Recipe(**recipe)}), weights
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read by this version ({error!r}).\nUse the version of maskedclip_composer that wrote it."
        ) from error


def _other_kind(path: Path, metadata: Mapping[str, str]) -> str:
    if metadata.get("format", "").startswith("maskedclip-encoder"):
        return (
            f"{path} is an encoder, not a classifier: it knows no classes.\nTrain one: composer evaluate.py "
            f"yamls/evaluate.yaml checkpoints.mine={path} tasks=[TASK] save_models=true"
        )
    return (
        f"{path} says format={metadata.get('format')!r}, not {FORMAT!r}: it is no classifier of ours.\n"
        "evaluate.py writes them with save_models=true."
    )
