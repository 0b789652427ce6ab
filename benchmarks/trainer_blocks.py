"""Blocks of training steps for trainer.py: by a loop of our own, and by Composer's Trainer as a run builds it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import torch
from budget import useful_flops
from composer import Trainer
from composer.core import Callback, DataSpec, State
from composer.loggers import Logger
from contestants import MOMENTUM, OPTIMIZER
from loader_sets import draw, write_pairs, write_shards
from rounds import Cost, now, since
from sizes import Sizes, build_network, typical_texts
from torch.optim.lr_scheduler import LambdaLR

from data_prep.text_tower import build as build_text_tower
from maskedclip_composer.algorithms.ema_teacher import update_teacher
from maskedclip_composer.build import build_algorithms, build_schedule
from maskedclip_composer.callbacks.build import tracking_callbacks
from maskedclip_composer.callbacks.config import TrackingConfig
from maskedclip_composer.compute import ComputeConfig
from maskedclip_composer.config import ObjectivesConfig, TrainConfig, to_plain
from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.loader import build_loader, data_manifest
from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.data.prompts import PromptConfig
from maskedclip_composer.models.compiled import compile_blocks
from maskedclip_composer.models.pretrain import MaskedCLIP
from maskedclip_composer.models.teacher import TeacherConfig
from maskedclip_composer.models.text import TextEncoderConfig, load_tokenizer
from maskedclip_composer.objectives.lg_clip import LgClipConfig
from maskedclip_composer.objectives.mfd import MfdConfig
from maskedclip_composer.objectives.mim import MimConfig
from maskedclip_composer.optim import build_optimizer

COMPUTE = ComputeConfig()  # as a run has it by default: blocks are compiled on CUDA
TEMPLATE = "A fundus photograph of {category}"


@dataclass(kw_only=True)
class Watch:
    """Takes the cost of a block's steps after its first ones, and keeps the losses of all.

    In the first steps loader processes start, and what is done once for each `fit`, not once for each step, is outside.
    """

    lead: int
    length: int
    on_gpu: bool
    losses: list[float] = field(default_factory=list)
    begin: Cost | None = None
    cost: Cost | None = None

    def lap(self, done: int) -> None:
        """Note that `done` steps of the block are done; the device is waited for at two of them alone."""
        if done not in (self.lead, self.length):
            return
        if self.on_gpu:
            torch.cuda.synchronize()
        if done == self.lead:
            self.begin = now()
        else:
            assert self.begin is not None
            self.cost = since(self.begin)


class Laps(Callback):
    """Tells a `Watch` of each step when all is done that belongs to it."""

    def __init__(self, new_watch: Callable[[], Watch]):
        self.new_watch = new_watch
        self.watch = new_watch()

    def fit_start(self, state: State, logger: Logger) -> None:
        """Begin a block."""
        self.watch = self.new_watch()

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """End a step."""
        assert isinstance(state.total_loss_dict, dict)
        self.watch.losses.append(state.total_loss_dict["loss/train/total"])
        self.watch.lap(state.timestamp.batch_in_epoch.value)


@dataclass(frozen=True)
class Ready:
    """Batches in memory as a loader."""

    batches: list[Any]
    batch_size: int

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all variants share.

    Attributes:
        sizes: Of the network.
        pairs: Paired images of a step, and as many unpaired ones.
        lead: First steps of a block, which are not timed.
        steps: Timed steps of a block.
        device: cpu or cuda.
        workers: Loader processes.
        folder: For shards and what a run writes.
        console: Where the progress bars are drawn.
    """

    sizes: Sizes
    pairs: int
    lead: int
    steps: int
    device: str
    workers: int
    folder: Path
    console: TextIO

    def new_watch(self) -> Watch:
        """Begin a block."""
        return Watch(lead=self.lead, length=self.lead + self.steps, on_gpu=self.device == "cuda")

    def write_data(self, pixels: int, distinct: int) -> DataConfig:
        """Draw photographs and write the shards of both streams, as many as a block takes, and a tokenizer."""
        files = draw(self.folder / "photographs", (self.lead + self.steps) * self.pairs, distinct, pixels)
        categories = list(read_pack("retina-en").categories)[: typical_texts(self.pairs)]
        write_pairs(files, categories, self.folder / "paired")
        write_shards(files, self.folder / "unpaired")
        texts = [TEMPLATE.format(category=category) for category in categories]
        build_text_tower(texts, self.folder / "text", width=32, layers=1, heads=1, vocab=1000, seed=0)
        paired, unpaired = (
            StreamConfig(remote=str(self.folder / name), batch_size=self.pairs) for name in ("paired", "unpaired")
        )
        # One text a category: a step's texts are then as many as those of the paper's mix.
        prompts = PromptConfig(expert=False, template=TEMPLATE)
        return DataConfig(
            paired=paired,
            unpaired=unpaired,
            prompts=prompts,
            image_size=self.sizes.image_size,
            num_workers=self.workers,
        )

    def loader(self, data: DataConfig) -> DataSpec:
        """Build the loader of a run."""
        tokenizer = load_tokenizer(TextEncoderConfig(name=str(self.folder / "text")))
        patches = self.sizes.image_size // 16
        return build_loader(data, tokenizer=tokenizer, grid=(patches, patches), seed=0)

    def model(self) -> MaskedCLIP:
        """Build the network, with the same weights each time."""
        torch.manual_seed(0)
        with torch.device(self.device):
            model = build_network(self.sizes, COMPUTE)
        compile_blocks(model.net, COMPUTE, torch.device(self.device))
        return model

    def bare(self, batches: list[Any]) -> Callable[[], Watch]:
        """Build a loop of our own."""
        model = self.model()
        net = model.net
        optimizer = build_optimizer(OPTIMIZER, net, self.pairs)
        # As in `trainer`: Composer 0.32.1 moves its clock after its schedules, so that two steps have the first rate.
        schedule = LambdaLR(optimizer, lambda step: min(max(step - 1, 0.0), 1.0))
        parameters = list(net.parameters())

        def step(batch: Any) -> torch.Tensor:
            with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
                losses = model.loss(model(batch), batch)
            losses["total"].backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            assert net.teacher is not None
            update_teacher(net.teacher, net.branch, MOMENTUM)
            return losses["total"].detach()

        def block() -> Watch:
            watch, losses = self.new_watch(), []
            for done, batch in enumerate(batches, 1):
                losses.append(step(batch))
                watch.lap(done)
            watch.losses = [float(loss) for loss in losses]
            return watch

        return block

    def trainer(self, data: DataConfig, loader: DataSpec, name: str) -> Callable[[], Watch]:
        """Build a Trainer as `build.build_trainer` makes it."""
        config = TrainConfig(
            run_name=name,
            output=str(self.folder / "runs"),
            data=data,
            # `build_algorithms` asks which are on; the network is that of `sizes.py`.
            objectives=ObjectivesConfig(mim=MimConfig(), lg_clip=LgClipConfig(), mfd=MfdConfig()),
            teacher=TeacherConfig(momentum=MOMENTUM),
            # A constant rate after the first step: the duration, and so the schedule, changes with each block.
            optimizer=replace(OPTIMIZER, warmup="1ba", final_lr_factor=1.0),
            compute=COMPUTE,
            # Of the timed steps of a block one is diagnosed and one taken apart, if they are not more than 10.
            tracking=TrackingConfig(mlflow=False, picture_interval=None, diagnostics_interval=min(10, self.steps)),
            trainer={"max_duration": "1ep"},
        )
        model = self.model()
        loggers, callbacks = tracking_callbacks(
            config.tracking,
            run_folder=config.run_folder,
            run_name=name,
            output=Path(config.output),
            resolved_config=to_plain(config),
            manifest=data_manifest(data),
            documents=lambda folder: [],
            seed=config.seed,
            count_operations=lambda batch: useful_flops(self.sizes, self.pairs, typical_texts(self.pairs)),
        )
        laps = Laps(self.new_watch)
        trainer = Trainer(
            model=model,
            train_dataloader=loader,
            optimizers=build_optimizer(config.optimizer, model.net, self.pairs, fused=COMPUTE.fused_optimizer),
            schedulers=build_schedule(config, self.lead + self.steps),
            algorithms=build_algorithms(config, on_gpu=self.device == "cuda"),
            callbacks=[*callbacks, laps],
            loggers=loggers,
            run_name=name,
            seed=config.seed,
            device="gpu" if self.device == "cuda" else "cpu",
            precision="amp_bf16" if self.device == "cuda" else "fp32",
            max_duration=config.trainer["max_duration"],
            spin_dataloaders=False,  # a new `fit` would read a batch of every block before it
            console_stream=self.console,
        )

        def block() -> Watch:
            trainer.fit(duration="1ep")
            return laps.watch

        return block
