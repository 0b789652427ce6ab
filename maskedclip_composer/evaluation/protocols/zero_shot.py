"""Zero-shot classification: the image's feature in the joint space against the prompts of each class."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from maskedclip_composer.build import build_model
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
from maskedclip_composer.export.model_weights import read_model_weights
from maskedclip_composer.initial_weights import recorded_start
from maskedclip_composer.models.pretrain import PretrainNet
from maskedclip_composer.models.text import load_tokenizer
from maskedclip_composer.objectives.two_tower import TwoTower


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


@torch.no_grad()
def zero_shot(config: ZeroShotConfig, problem: Problem) -> Fit:
    """Score the test split by cosine with each class's text feature, times the learnt scale, in a softmax.

    A class's text feature is the mean of the normalised features of all its prompts, normalised again. (FLAIR does not
    normalise the mean, so that classes whose prompts agree weigh more.) Labels that may be several are scored each for
    itself by the sigmoid of the scaled cosine; a threshold of 0.5 means nothing there, the order does.

    `details` has the macro ROC with each single template, which shows how much the wording matters; nothing is chosen
    by it.

    Raises:
        UserError: The checkpoint is damaged, or its image encoder is not the one that is evaluated.
    """
    assert problem.task.prompts is not None
    net, tokenizer, max_tokens = _load(problem)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net.to(device).eval()
    objective = next(objective for objective in net.objectives.values() if isinstance(objective, TwoTower))
    images = _image_features(net, objective, problem, device)
    scale = float(objective.log_logit_scale.exp())
    options = {"padding": True, "truncation": True, "max_length": max_tokens, "return_tensors": "pt"}

    def scores(pack: PromptPack) -> Float[np.ndarray, "images classes"]:
        source = problem.task.prompts
        assert source is not None
        prompts = pack.class_prompts(source.dataset, source.target)
        texts = torch.stack(
            [
                _text_feature(net, objective, tokenizer(prompts[code], **options).to(device))
                for code in problem.data.classes
            ]
        ).cpu()
        logits = scale * (images @ texts.T)
        return (logits.sigmoid() if problem.data.kind == "multilabel" else logits.softmax(dim=1)).numpy()

    pack, test = _pack(config), problem.data.test
    by_template = {}
    for template in pack.templates:
        probabilities = scores(replace(pack, templates=(template,)))
        by_template[template] = classification_metrics(probabilities, test.one_hot, problem.data.kind)["roc"]
    return Fit(probabilities=scores(pack), details={"roc_by_template": by_template, "logit_scale": scale})


def _pack(config: ZeroShotConfig) -> PromptPack:
    return config.prompts.applied_to(read_pack(config.prompts.pack))


def _load(problem: Problem) -> tuple[PretrainNet, PreTrainedTokenizerBase, int]:
    """Build a run's network and load its checkpoint, every key of it; return its tokenizer and text length too."""
    folder, path = training_run(problem.source), checkpoint(problem.source)
    config = load_config(TrainConfig, f"{folder}/config.yaml", [])
    model = build_model(config, recorded_start(Path(f"{folder}")))
    try:
        model.load_state_dict(read_model_weights(path), strict=True)
    except RuntimeError as error:
        raise UserError(f"{path} is not of the network that {folder}/config.yaml describes:\n{error}") from error
    own = problem.encoder.module.state_dict()
    weights = model.net.branch.image_encoder.vit.state_dict()
    if not all(key in own and torch.equal(value, own[key].cpu()) for key, value in weights.items()):
        raise UserError(
            f"{path} has another image encoder than {problem.source}: the run went on after the export, or was stopped "
            "before it.\nGive the checkpoint itself, or RUN/latest."
        )
    return model.net, load_tokenizer(config.text_encoder), config.data.max_tokens


def _image_features(
    net: PretrainNet, objective: TwoTower, problem: Problem, device: torch.device
) -> Float[Tensor, "images dim"]:
    """Return the normalised joint features of the test photographs, in their order."""
    encoder = net.branch.image_encoder
    dataset = eval_dataset(problem.photographs["test"], encoder.grid[0] * encoder.patch_size)
    loader = build_loader(
        dataset, problem.batch_size, problem.workers, sampler=range(rank(), len(dataset), world_size())
    )
    own = []
    for batch in loader:
        tokens = net.branch(net.normalise(batch["image"].to(device)))
        own.append(objective.embed_images(tokens).cpu())
    parts = gather_objects(torch.cat(own) if own else None)
    width = next(part.shape[1] for part in parts if part is not None)
    features = torch.empty(len(dataset), width)
    for index, part in enumerate(parts):
        if part is not None:  # fewer photographs than ranks
            features[index :: len(parts)] = part
    return features


def _text_feature(net: PretrainNet, objective: TwoTower, tokens: Mapping[str, Tensor]) -> Float[Tensor, " dim"]:
    assert net.text_encoder is not None
    encoded = net.text_encoder(tokens["input_ids"], tokens["attention_mask"])
    features = objective.embed_texts(encoded, tokens["attention_mask"])
    return F.normalize(features.mean(dim=0), dim=-1)
