"""From a checked config to a Trainer: the only file that knows both."""

from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from composer import Trainer
from composer.core import Algorithm, DataSpec, Time, TimeUnit
from composer.optim import CosineAnnealingWithWarmupScheduler
from composer.utils import FSDP2Config, ParallelismConfig, dist, get_device, reproducibility
from streaming import StreamingDataset
from torch.utils.data import DataLoader

from maskedclip_composer.algorithms.clamp_logit_scale import ClampLogitScale
from maskedclip_composer.algorithms.clip_gradients import ClipGradients
from maskedclip_composer.algorithms.ema_teacher import EMATeacher
from maskedclip_composer.algorithms.fault import FindSample
from maskedclip_composer.algorithms.finite_steps import FiniteSteps
from maskedclip_composer.algorithms.keep_gathered import KeepGathered
from maskedclip_composer.algorithms.mean_over_ranks import MeanOverRanks
from maskedclip_composer.algorithms.progress import Progress
from maskedclip_composer.callbacks.build import tracking_callbacks
from maskedclip_composer.callbacks.export import EncoderExport
from maskedclip_composer.callbacks.fault_file import FaultFile
from maskedclip_composer.callbacks.run_cards import RunCards
from maskedclip_composer.callbacks.text_side import TextSide
from maskedclip_composer.callbacks.tracking import FaultTolerantMLFlowLogger
from maskedclip_composer.callbacks.whole_checkpoints import LATEST, WholeCheckpoints
from maskedclip_composer.checkpoints import prepare_checkpoints
from maskedclip_composer.config import TrainConfig, to_plain
from maskedclip_composer.costs.step_cost import step_flops
from maskedclip_composer.dashboard.callback import Dashboard
from maskedclip_composer.data.documents import collect_documents
from maskedclip_composer.data.loader import build_loader, data_manifest
from maskedclip_composer.data.origin import find_origin
from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.errors import UserError
from maskedclip_composer.initial_weights import Start, build_started_encoder, find_start, read_start, start_parts
from maskedclip_composer.models.attention import use_backend
from maskedclip_composer.models.branch import ImageBranch
from maskedclip_composer.models.compiled import compile_blocks
from maskedclip_composer.models.fp8 import use_fp8
from maskedclip_composer.models.masking import num_visible
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.recompute import set_activation
from maskedclip_composer.models.residual import use_residual
from maskedclip_composer.models.teacher import TeacherConfig
from maskedclip_composer.models.text import TextEncoder, build_text_encoder, load_tokenizer
from maskedclip_composer.models.vit import ImageEncoder
from maskedclip_composer.nodes import check_nodes
from maskedclip_composer.objectives.base import Objective, Parts, reads_both_views
from maskedclip_composer.optim import build_optimizer
from maskedclip_composer.rank_failure import share_failures
from maskedclip_composer.types import Batch

# Seconds that ranks wait for each other. Composer's 300 are less than a first shard may take from an object store.
DIST_TIMEOUT = 1800.0


def build_trainer(config: TrainConfig) -> Trainer:
    """Build everything that `config` describes and hand it to Composer.

    Raises:
        UserError: Data, weights or folders that the config names cannot be used.
    """
    on_gpu = config.trainer.get("device", "gpu") == "gpu" and torch.cuda.is_available()
    dist_timeout = config.trainer.get("dist_timeout", DIST_TIMEOUT)
    if dist.get_world_size() > 1:
        dist.initialize_dist(get_device("gpu" if on_gpu else "cpu"), timeout=dist_timeout)
        share_failures()
    checkpoints = prepare_checkpoints(config)
    check_nodes(config, checkpoints)
    latest = checkpoints / LATEST
    start = find_start(config, latest)
    reproducibility.seed_all(config.seed)  # the same weights on every rank
    model = build_model(config, start)
    device = torch.device("cuda" if on_gpu else "cpu")
    use_fp8(model.net, config.compute.fp8, device)
    compile_blocks(model.net, config.compute, device, cache=Path(config.output) / ".compiled")
    loader = build_train_loader(config, model.net.branch.image_encoder)
    batch_size = max(part.batch_size for part in (config.data.paired, config.data.unpaired) if part is not None)
    loggers, callbacks = tracking_callbacks(
        config.tracking,
        run_folder=config.run_folder,
        run_name=config.run_name,
        output=Path(config.output),
        resolved_config=to_plain(config),
        manifest=data_manifest(config.data) if dist.get_global_rank() == 0 else {},
        documents=partial(collect_documents, config.data),
        seed=config.seed,
        watch=config.watch,
        count_operations=partial(_count_operations, config),
        origin=None if start is None else start.origin,
        image_mean=model.net.branch.image_encoder.image_mean,
        image_std=model.net.branch.image_encoder.image_std,
    )
    tracker = next((logger for logger in loggers if isinstance(logger, FaultTolerantMLFlowLogger)), None)
    train_loader = cast(DataLoader[Any], loader.dataloader)
    defaults = {"precision": "amp_bf16" if on_gpu else "fp32", "dist_timeout": dist_timeout}
    arguments: dict[str, Any] = defaults | dict(config.trainer)
    return Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=build_optimizer(config.optimizer, model.net, batch_size, fused=config.compute.fused_optimizer),
        schedulers=build_schedule(config, len(train_loader)),
        algorithms=build_algorithms(
            config,
            on_gpu=on_gpu,
            faults=FaultFile(config.run_folder / "faults.jsonl", tracker),
            find_sample=partial(find_origin, cast(StreamingDataset, train_loader.dataset)),
        ),
        callbacks=[
            *callbacks,
            *([TextSide(config.run_folder, load_tokenizer(config.text_encoder))] if config.reads_texts else []),
            EncoderExport(config.run_folder / "encoder.safetensors", config.image_encoder.name),
            RunCards(config.run_folder, tracker),
            Dashboard(config.run_folder, config.tracking.dashboard_interval, tracker),
            # Last: it saves what the others have done in the step.
            WholeCheckpoints(checkpoints, interval=config.checkpoint.interval, keep=config.checkpoint.keep),
        ],
        loggers=loggers,
        run_name=config.run_name,
        seed=config.seed,
        # Composer's autoresume (0.32.1) fails on nodes that share the folder: each removes the same signal file.
        load_path=str(latest) if dist.all_gather_object(latest.exists())[0] else None,
        # FULL leaves precision to autocast, as under DDP: FSDP2's own casting would round mask noise and logit scale.
        parallelism_config=ParallelismConfig(fsdp2=FSDP2Config(mixed_precision="FULL"))
        if config.parallelism == "fsdp"
        else None,
        **arguments,
    )


def _count_operations(config: TrainConfig, batch: Batch) -> int:
    return step_flops(config, build_model, batch=batch).total


def build_model(config: TrainConfig, start: Start | None = None) -> MaskedCLIP:
    """Build the network: only the modules that the objectives use.

    Args:
        config: The run.
        start: What the network starts from; None reads `image_encoder.weights` where they are given.

    Raises:
        UserError: Weights cannot be loaded, or sizes do not fit together.
    """
    if start is None and config.image_encoder.weights is not None:
        start = read_start(config)
    encoder = build_started_encoder(config, start)
    patches = encoder.grid[0] * encoder.grid[1]
    if not 0 < num_visible(patches, config.mask_ratio) < patches:
        raise UserError(
            f"mask_ratio={config.mask_ratio} of {patches} patches leaves {num_visible(patches, config.mask_ratio)} "
            "visible.\nChange mask_ratio, or have more patches: a larger data.image_size or a smaller patch."
        )
    branch = ImageBranch(encoder, config.bridge, config.image_encoder.attention)
    text_encoder = build_text_encoder(config.text_encoder) if config.reads_texts else None
    if text_encoder is not None and config.data.max_tokens > text_encoder.max_tokens:
        raise UserError(
            f"data.max_tokens={config.data.max_tokens} is more than the {text_encoder.max_tokens} positions of "
            f"text_encoder.name={config.text_encoder.name}.\nLower data.max_tokens."
        )
    objectives = build_objectives(config, encoder, text_encoder)
    for objective in objectives.values():
        use_backend(objective, config.image_encoder.attention)
    net = PretrainNet(
        branch,
        text_encoder,
        objectives,
        mask_ratio=config.mask_ratio,
        with_teacher=config.with_teacher,
        packed=config.compute.packed and reads_both_views(config.objectives.present().values()),
        chunk_size=config.compute.chunk_size,
    )
    start_parts(net, start)
    set_activation(net, config.compute.activation)
    use_residual(net, config.compute.residual)
    return MaskedCLIP(net)


def build_objectives(
    config: TrainConfig, encoder: ImageEncoder, text_encoder: TextEncoder | None
) -> dict[str, Objective]:
    """Build the objectives that are on, in the order in which their losses are added up."""
    parts = Parts(image_encoder=encoder, compute=config.compute)
    if text_encoder is not None:
        pack = config.data.prompts.applied_to(read_pack(config.data.prompts.pack))
        parts = Parts(
            image_encoder=encoder,
            text_encoder=text_encoder,
            tokenizer=load_tokenizer(config.text_encoder),
            categories=tuple(category.name for category in pack.categories.values()),
            compute=config.compute,
        )
    return {name: objective.build(parts) for name, objective in config.objectives.present().items()}


def build_train_loader(config: TrainConfig, encoder: ImageEncoder) -> DataSpec:
    """Build the loader of both streams."""
    return build_loader(
        config.data,
        tokenizer=load_tokenizer(config.text_encoder) if config.data.paired is not None else None,
        grid=encoder.grid,
        seed=config.seed,
        distinct_texts=config.compute.distinct_texts,
    )


def build_algorithms(
    config: TrainConfig, *, on_gpu: bool, faults: FaultFile | None = None, find_sample: FindSample | None = None
) -> list[Algorithm]:
    """Build what happens around the optimiser step; the logit scale is clamped before the teacher is updated."""
    clip = ClipGradients(config.optimizer.max_grad_norm)
    steps = FiniteSteps(
        clip,
        config.optimizer.non_finite,
        config.optimizer.max_skipped,
        record=None if faults is None else faults.append,
        find_sample=find_sample,
    )
    algorithms: list[Algorithm] = [steps, clip]
    if config.parallelism == "fsdp" and not on_gpu:
        algorithms.append(MeanOverRanks())
    if config.parallelism == "fsdp" and config.compute.chunk_size is not None:
        algorithms.append(KeepGathered())  # after MeanOverRanks: Composer runs AFTER_* events in reverse order
    algorithms += [Progress(), ClampLogitScale()]
    if config.with_teacher:
        algorithms.append(EMATeacher(config.teacher or TeacherConfig(), steps))
    return algorithms


def build_schedule(config: TrainConfig, steps_per_epoch: int) -> CosineAnnealingWithWarmupScheduler:
    """Build the warm-up and cosine of the learning rates.

    Raises:
        UserError: The warm-up takes the whole training.
    """

    def steps(time: str) -> int:
        parsed = Time.from_input(time)
        return parsed.value * (steps_per_epoch if parsed.unit == TimeUnit.EPOCH else 1)

    warmup, duration = config.optimizer.warmup, str(config.trainer["max_duration"])
    if steps(warmup) >= steps(duration):
        raise UserError(
            f"optimizer.warmup={warmup} is not shorter than trainer.max_duration={duration}: an epoch has "
            f"{steps_per_epoch} steps.\nLower the warm-up, or train for longer."
        )
    return CosineAnnealingWithWarmupScheduler(t_warmup=warmup, t_max="1dur", alpha_f=config.optimizer.final_lr_factor)
