"""Zero-shot classification: the image's feature in the joint space against the prompts of each class."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.data.prompts import PromptPack
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.loading import build_loader, eval_dataset
from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.protocols.base import Fit, Problem
from maskedclip_composer.evaluation.protocols.config import ProtocolConfig, ZeroShotConfig
from maskedclip_composer.evaluation.ranks import gather_objects, rank, world_size
from maskedclip_composer.evaluation.tasks import TaskConfig
from maskedclip_composer.evaluation.training_run import training_run
from maskedclip_composer.use.class_texts import class_features, class_scores
from maskedclip_composer.use.dual_tower import DualTower
from maskedclip_composer.use.load import load
from maskedclip_composer.use.tokenizer import Tokenizer


def objection(source: str, image_size: int | None) -> str:
    """Say why an encoder cannot classify zero-shot; empty where it can."""
    folder = training_run(source)
    config = None if folder is None else load_config(TrainConfig, str(folder / "config.yaml"), [])
    if config is None or not checkpoint(source).exists() or not _aligns_texts(config):
        return "zero-shot needs the checkpoint of a pre-training run with texts, for its bridge and text encoder"
    if image_size not in (None, config.data.image_size):
        return f"the bridge takes images of {config.data.image_size} pixels, not image_size={image_size}"
    return ""


def _aligns_texts(config: TrainConfig) -> bool:
    return any(objective.is_two_tower for objective in config.objectives.present().values())


def checkpoint(source: str) -> Path:
    """Return the checkpoint with all modules of the run that an encoder comes from."""
    if source.endswith(".pt"):
        return Path(source)
    folder = training_run(source)
    assert folder is not None
    return folder / "checkpoints" / "latest-rank0.pt"


def check_prompts(
    protocols: dict[str, ProtocolConfig], tasks: dict[str, TaskConfig], classes: Mapping[str, Sequence[str]]
) -> None:
    """Look up the prompts of every task's classes before anything is computed.

    Raises:
        UserError: A pack does not know a task's data set, or lacks one of its classes.
    """
    for protocol in protocols.values():
        for name, task in tasks.items():
            if protocol.zero_shot is None or task.prompts is None:
                continue
            prompts = _pack(protocol.zero_shot).class_prompts(task.prompts.dataset, task.prompts.target)
            missing = [code for code in classes[name] if code not in prompts]
            if missing:
                raise UserError(
                    f"task {name}: the pack {protocol.zero_shot.prompts.pack} has no words for class {missing[0]}.\n"
                    "Add it to `zero_shot` in a pack of your own (docs/prompts.md)."
                )


def zero_shot(config: ZeroShotConfig, problem: Problem) -> Fit:
    """Score the test split by cosine with each class's text feature, times the learnt scale (`use/class_texts.py`).

    `details` has the macro ROC with each single template, which shows how much the wording matters; nothing is chosen
    by it.

    Raises:
        UserError: The checkpoint is damaged, or its image encoder is not the one that is evaluated.
    """
    source, kind = problem.task.prompts, problem.data.kind
    assert source is not None
    model, tokenizer = _load(problem)
    images = _image_features(model, problem)

    def scores(pack: PromptPack) -> Float[np.ndarray, "images classes"]:
        prompts = pack.class_prompts(source.dataset, source.target)
        texts = class_features(model, tokenizer, {code: prompts[code] for code in problem.data.classes})
        return class_scores(images, texts, model.logit_scale, multilabel=kind == "multilabel").numpy()

    pack, test = _pack(config), problem.data.test
    by_template = {}
    for template in pack.templates:
        probabilities = scores(replace(pack, templates=(template,)))
        by_template[template] = classification_metrics(probabilities, test.one_hot, kind)["roc"]
    details = {"roc_by_template": by_template, "logit_scale": model.logit_scale}
    return Fit(probabilities=scores(pack), details=details)


def _pack(config: ZeroShotConfig) -> PromptPack:
    return config.prompts.applied_to(read_pack(config.prompts.pack))


def _load(problem: Problem) -> tuple[DualTower, Tokenizer]:
    path = checkpoint(problem.source)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, _, tokenizer = load(path, device=device)
    assert tokenizer is not None  # see `objection`
    own = problem.encoder.module.state_dict()
    weights = model.branch.image_encoder.vit.state_dict()
    if not all(key in own and torch.equal(value.cpu(), own[key].cpu()) for key, value in weights.items()):
        raise UserError(
            f"{path} has another image encoder than {problem.source}: the run went on after the export, or was stopped "
            "before it.\nGive the checkpoint itself, or RUN/latest."
        )
    return model, tokenizer


def _image_features(model: DualTower, problem: Problem) -> Float[Tensor, "images dim"]:
    """Return the normalised joint features of the test photographs, in their order."""
    dataset = eval_dataset(problem.photographs["test"], model.image_size)
    loader = build_loader(
        dataset, problem.batch_size, problem.workers, sampler=range(rank(), len(dataset), world_size())
    )
    own = [model.encode_image(batch["image"]).cpu() for batch in loader]
    parts = gather_objects(torch.cat(own) if own else None)
    width = next(part.shape[1] for part in parts if part is not None)
    features = torch.empty(len(dataset), width)
    for index, part in enumerate(parts):
        if part is not None:  # fewer photographs than ranks
            features[index :: len(parts)] = part
    return features
