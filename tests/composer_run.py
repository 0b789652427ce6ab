"""Composer runs of the tiny network, in one process or as one of several ranks."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from composer import Trainer
from composer.core import Algorithm, Callback, DataSpec, Event, State
from composer.loggers import InMemoryLogger, Logger, LoggerDestination
from composer.utils import FSDP2Config, ParallelismConfig
from torch import Tensor
from torch.distributed.tensor import DTensor

from maskedclip_composer.algorithms.clamp_logit_scale import ClampLogitScale
from maskedclip_composer.algorithms.clip_gradients import ClipGradients
from maskedclip_composer.algorithms.ema_teacher import EMATeacher
from maskedclip_composer.algorithms.finite_steps import FiniteSteps
from maskedclip_composer.algorithms.keep_gathered import KeepGathered
from maskedclip_composer.algorithms.mean_over_ranks import MeanOverRanks
from maskedclip_composer.algorithms.progress import Progress
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.teacher import TeacherConfig
from maskedclip_composer.optim import OptimizerConfig, build_optimizer
from maskedclip_composer.types import Batch


class Batches(list[Batch]):
    """A loader of ready-made batches."""

    @property
    def batch_size(self) -> int:
        return num_images(self[0])


def num_images(batch: Batch) -> int:
    return sum(len(part["image"]) for part in batch.values())


class Record(Callback):
    """Keeps every step's losses, and the whole parameters after every optimiser step, before other algorithms act."""

    def __init__(self):
        self.losses: list[dict[str, float]] = []
        self.parameters: list[dict[str, Tensor]] = []

    def run_event(self, event: Event, state: State, logger: Logger) -> None:
        if event == Event.AFTER_LOSS:
            assert isinstance(state.loss, dict)
            self.losses.append({name: float(loss) for name, loss in state.loss.items()})
        if event in (Event.FIT_START, Event.BATCH_END):
            self.parameters.append(whole_parameters(state))


def whole_parameters(state: State) -> dict[str, Tensor]:
    """Return all parameters by name, gathered over ranks, as copies."""
    whole = {}
    for name, parameter in state.model.named_parameters():
        value = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        whole[name.removeprefix("module.")] = value.detach().clone()
    return whole


def fit(
    net: PretrainNet,
    batches: list[Batch],
    *,
    momentum: float = 0.9,
    max_grad_norm: float | None = 1.0,
    lr: float = 1e-3,
    fsdp: bool = False,
    sharded: bool = True,
    non_finite: Literal["stop", "skip"] = "stop",
    max_skipped: int | None = None,
    max_duration: str | None = None,
    record_fault: Callable[[dict[str, Any]], str] | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[LoggerDestination] = (),
    **arguments: Any,
) -> tuple[Trainer, Record, InMemoryLogger]:
    """Train one step for each batch with the algorithms of the entry point; `arguments` are the Trainer's.

    Without `sharded`, FSDP2's checkpoints are single files.
    """
    record, metrics = Record(), InMemoryLogger()
    clip = ClipGradients(max_grad_norm)
    steps = FiniteSteps(clip, non_finite, max_skipped, record=record_fault)
    algorithms: list[Algorithm] = [steps, clip, Progress(), ClampLogitScale()]
    if any(net.momentum_pairs()):
        algorithms.append(EMATeacher(TeacherConfig(momentum=momentum), steps))
    if fsdp:
        algorithms += [MeanOverRanks(), *([KeepGathered()] if net.chunk_size else [])]
    trainer = Trainer(
        model=MaskedCLIP(net),
        train_dataloader=DataSpec(
            Batches(batches), get_num_samples_in_batch=num_images, split_batch=lambda batch, size: [batch]
        ),
        optimizers=build_optimizer(OptimizerConfig(lr=lr), net, batch_size=4),
        algorithms=algorithms,
        callbacks=[record, *callbacks],
        loggers=[metrics, *loggers],
        parallelism_config=ParallelismConfig(fsdp2=FSDP2Config(state_dict_type="sharded" if sharded else "full"))
        if fsdp
        else None,
        progress_bar=False,
        device="cpu",
        max_duration=max_duration or f"{len(batches)}ba",
        **arguments,
    )
    trainer.fit()
    return trainer, record, metrics
