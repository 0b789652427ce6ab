"""From a checked config to a Trainer: the only file that knows both."""

import os
from pathlib import Path
from typing import Any

import torch
from composer import Trainer
from composer.core import Algorithm, DataSpec, Time
from composer.optim import CosineAnnealingWithWarmupScheduler
from composer.utils import FSDP2Config, ParallelismConfig, dist, reproducibility

from maskedclip_composer.algorithms.clamp_logit_scale import ClampLogitScale
from maskedclip_composer.algorithms.clip_gradients import ClipGradients
from maskedclip_composer.algorithms.ema_teacher import EMATeacher
from maskedclip_composer.algorithms.mean_over_ranks import MeanOverRanks
from maskedclip_composer.callbacks.build import tracking_callbacks
from maskedclip_composer.callbacks.export import EncoderExport
from maskedclip_composer.config import TrainConfig, to_plain
from maskedclip_composer.data.loader import build_loader, data_manifest
from maskedclip_composer.errors import UserError
from maskedclip_composer.export.checkpoint import read_checkpoint
from maskedclip_composer.models.attention import use_backend
from maskedclip_composer.models.branch import ImageBranch
from maskedclip_composer.models.masking import num_visible
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.text import build_text_encoder, load_tokenizer
from maskedclip_composer.models.vit import ImageEncoder, build_image_encoder
from maskedclip_composer.objectives.base import Objective
from maskedclip_composer.objectives.lg_clip import LabelGuidedClip
from maskedclip_composer.objectives.mfd import MaskedFeatureDistillation
from maskedclip_composer.objectives.mim import MaskedImageModelling
from maskedclip_composer.optim import build_optimizer


def build_trainer(config: TrainConfig) -> Trainer:
    """Build everything that `config` describes and hand it to Composer.

    Raises:
        UserError: Data, weights or folders that the config names cannot be used.
    """
    checkpoints = _prepare_checkpoints(config)
    reproducibility.seed_all(config.seed)  # the same weights on every rank
    model = build_model(config)
    loader = build_train_loader(config, model.net.branch.image_encoder)
    batch_size = max(part.batch_size for part in (config.data.paired, config.data.unpaired) if part is not None)
    loggers, callbacks = tracking_callbacks(
        config.tracking,
        run_folder=config.run_folder,
        run_name=config.run_name,
        output=Path(config.output),
        resolved_config=to_plain(config),
        manifest=data_manifest(config.data) if dist.get_global_rank() == 0 else {},
        seed=config.seed,
    )
    precision = "amp_bf16" if torch.cuda.is_available() else "fp32"
    arguments: dict[str, Any] = {"precision": precision, **config.trainer}
    return Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=build_optimizer(config.optimizer, model.net, batch_size),
        schedulers=_build_schedule(config),
        algorithms=build_algorithms(config),
        callbacks=[*callbacks, EncoderExport(config.run_folder / "encoder.safetensors", config.image_encoder.name)],
        loggers=loggers,
        run_name=config.run_name,
        seed=config.seed,
        save_folder=str(checkpoints),
        save_filename="ep{epoch}-ba{batch}-rank{rank}.pt",
        save_latest_filename="latest-rank{rank}.pt",
        save_interval=config.checkpoint.interval,
        save_num_checkpoints_to_keep=config.checkpoint.keep,
        autoresume=config.checkpoint.resume,
        parallelism_config=ParallelismConfig(fsdp2=FSDP2Config()) if config.parallelism == "fsdp" else None,
        **arguments,
    )


def build_model(config: TrainConfig) -> MaskedCLIP:
    """Build the network: only the modules that the objectives use.

    Raises:
        UserError: Weights cannot be loaded, or sizes do not fit together.
    """
    encoder = build_image_encoder(config.image_encoder, config.data.image_size)
    patches = encoder.grid[0] * encoder.grid[1]
    if not 0 < num_visible(patches, config.mask_ratio) < patches:
        raise UserError(
            f"mask_ratio={config.mask_ratio} of {patches} patches leaves {num_visible(patches, config.mask_ratio)} "
            "visible.\nChange mask_ratio, or have more patches: a larger data.image_size or a smaller patch."
        )
    branch = ImageBranch(encoder, config.bridge, config.image_encoder.attention)
    if config.objectives.lg_clip is None:
        branch.bridge = type(branch.bridge)(encoder.embed_dim, 0, 1)  # nothing would train a bridge
    text_encoder = build_text_encoder(config.text_encoder) if config.objectives.lg_clip is not None else None
    objectives = build_objectives(config, encoder, text_encoder.embed_dim if text_encoder is not None else 0)
    for objective in objectives.values():
        use_backend(objective, config.image_encoder.attention)
    return MaskedCLIP(
        PretrainNet(
            branch,
            text_encoder,
            objectives,
            mask_ratio=config.mask_ratio,
            with_teacher=config.objectives.mfd is not None,
        )
    )


def build_objectives(config: TrainConfig, encoder: ImageEncoder, text_dim: int) -> dict[str, Objective]:
    """Build the objectives that are on, in the order of eq. 6."""
    chosen = config.objectives
    objectives: dict[str, Objective] = {}
    if chosen.mim is not None:
        objectives["mim"] = MaskedImageModelling(chosen.mim, encoder)
    if chosen.lg_clip is not None:
        objectives["lg_clip"] = LabelGuidedClip(chosen.lg_clip, encoder.embed_dim, text_dim)
    if chosen.mfd is not None:
        objectives["mfd"] = MaskedFeatureDistillation(chosen.mfd, encoder)
    return objectives


def build_train_loader(config: TrainConfig, encoder: ImageEncoder) -> DataSpec:
    """Build the loader of both streams."""
    rows, columns = encoder.grid
    return build_loader(
        config.data,
        tokenizer=load_tokenizer(config.text_encoder) if config.data.paired is not None else None,
        num_patches=rows * columns,
        seed=config.seed,
    )


def build_algorithms(config: TrainConfig) -> list[Algorithm]:
    """Build what happens around the optimiser step; the logit scale is clamped before the teacher is updated."""
    algorithms: list[Algorithm] = [ClipGradients(config.optimizer.max_grad_norm)]
    if config.parallelism == "fsdp" and not torch.cuda.is_available():
        algorithms.append(MeanOverRanks())
    if config.objectives.lg_clip is not None:
        algorithms.append(ClampLogitScale())
    if config.objectives.mfd is not None:
        algorithms.append(EMATeacher(config.objectives.mfd.momentum))
    return algorithms


def _build_schedule(config: TrainConfig) -> CosineAnnealingWithWarmupScheduler:
    warmup, duration = Time.from_input(config.optimizer.warmup), Time.from_input(config.trainer["max_duration"])
    if warmup.unit == duration.unit and warmup.value >= duration.value:
        raise UserError(
            f"optimizer.warmup={config.optimizer.warmup} is not shorter than "
            f"trainer.max_duration={config.trainer['max_duration']}.\nLower the warm-up, or train for longer."
        )
    return CosineAnnealingWithWarmupScheduler(
        t_warmup=config.optimizer.warmup, t_max="1dur", alpha_f=config.optimizer.final_lr_factor
    )


def _prepare_checkpoints(config: TrainConfig) -> Path:
    """Make the checkpoint folder and see to it that nothing there would be overwritten or mixed up."""
    folder = config.run_folder / "checkpoints"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"output={config.output}: cannot write to {folder}: {error.strerror}.\nChoose another folder with output=…"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"output={config.output}: cannot write to {folder}.\nChoose another folder with output=…")
    if not config.checkpoint.resume and dist.get_global_rank() == 0 and any(folder.glob("*.pt")):
        raise UserError(
            f"checkpoint.resume=false, but {folder} already holds checkpoints of run_name={config.run_name}.\n"
            "Choose another run_name, remove the folder, or continue with checkpoint.resume=true."
        )
    if config.checkpoint.resume and (folder / "latest-rank0.pt").is_file():
        read_checkpoint(folder / "latest-rank0.pt")  # Composer would unpickle, and so run, whatever it holds
    return folder
