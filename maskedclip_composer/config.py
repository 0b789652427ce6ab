"""The config tree of a training run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import MISSING, OmegaConf

from maskedclip_composer.callbacks.config import TrackingConfig
from maskedclip_composer.callbacks.redaction import redact
from maskedclip_composer.data.config import DataConfig
from maskedclip_composer.errors import UserError
from maskedclip_composer.models.branch import BridgeConfig
from maskedclip_composer.models.text import TextEncoderConfig
from maskedclip_composer.models.vit import ImageEncoderConfig
from maskedclip_composer.objectives.lg_clip import LgClipConfig
from maskedclip_composer.objectives.mfd import MfdConfig
from maskedclip_composer.objectives.mim import MimConfig
from maskedclip_composer.optim import OptimizerConfig
from maskedclip_composer.times import check_time
from maskedclip_composer.trainer_arguments import check_trainer_arguments


@dataclass(frozen=True, kw_only=True)
class ObjectivesConfig:
    """Which losses are on: a key that is present switches its objective on, also as `{}`.

    Adding an objective is one file and one line here and in `build.build_objectives`.
    """

    mim: MimConfig | None = None
    lg_clip: LgClipConfig | None = None
    mfd: MfdConfig | None = None

    def __post_init__(self):
        if self.mim is None and self.lg_clip is None and self.mfd is None:
            raise UserError("objectives is empty: nothing would be learnt.\nSwitch one on, for example `mim: {}`.")
        if self.mfd is not None and self.lg_clip is None:
            raise UserError(
                "objectives.mfd is on without objectives.lg_clip: only lg_clip trains the bridge whose features mfd "
                "distils.\nAdd `lg_clip: {}` or remove mfd."
            )


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints, written to `<output>/<run_name>/checkpoints`.

    Attributes:
        interval: A Composer time such as 1ep or 500ba.
        keep: Keep the newest so many; -1 keeps all.
        resume: Continue from the newest checkpoint of this run_name when there is one.
    """

    interval: str = "1ep"
    keep: int = 2
    resume: bool = True

    def __post_init__(self):
        check_time("checkpoint.interval", self.interval)
        if self.keep == 0 or self.keep < -1:
            raise UserError(f"checkpoint.keep={self.keep} keeps nothing.\nUse a positive number, or -1 for all.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A pre-training run.

    Attributes:
        run_name: Names the run folder and the MLflow run; the same name continues a run.
        output: Folder of all runs.
        seed: Seed of weights, order, augmentation, masks and text draws.
        mask_ratio: Share of patches that masked image modelling and distillation remove.
        parallelism: ddp, or fsdp (FSDP2: parameters, gradients and optimiser state sharded over the ranks).
        trainer: Arguments of composer.Trainer, for example max_duration: 200ep.
    """

    run_name: str = MISSING
    output: str = "runs"
    seed: int = 17
    data: DataConfig = MISSING
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    mask_ratio: float = 0.75
    objectives: ObjectivesConfig = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    parallelism: Literal["ddp", "fsdp"] = "ddp"
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    trainer: dict[str, Any] = MISSING

    def __post_init__(self):
        if self.objectives.lg_clip is not None and self.data.paired is None:
            raise UserError(
                "objectives.lg_clip needs images with texts, but data.paired is not given.\nAdd data.paired."
            )
        if self.objectives.lg_clip is None and self.bridge.depth > 0:
            raise UserError(
                f"bridge.depth={self.bridge.depth} without objectives.lg_clip: only lg_clip trains the bridge.\n"
                "Write `bridge: {depth: 0}`, or add `lg_clip: {}` to the objectives."
            )
        if self.objectives.mim is None and self.objectives.mfd is None and self.data.unpaired is not None:
            raise UserError(
                "data.unpaired is given, but no objective uses images without texts.\n"
                "Remove it (data.unpaired=null), or add `mim: {}` to the objectives."
            )
        if self.seed < 0:
            raise UserError(f"seed={self.seed} is negative.\nUse 0 or more.")
        if not 0 < self.mask_ratio < 1:
            raise UserError(f"mask_ratio={self.mask_ratio} is outside (0, 1).\nThe paper's value is 0.75.")
        if Path(self.run_name).name != self.run_name or self.run_name in ("", ".", ".."):
            raise UserError(f"run_name={self.run_name!r} must be a plain name: it names a folder below {self.output}.")
        check_trainer_arguments(self.trainer)

    @property
    def run_folder(self) -> Path:
        """Where this run's files are."""
        return Path(self.output) / self.run_name


def to_plain(config: Any) -> dict[str, Any]:
    """Return the resolved config as nested dicts and lists, as it is printed, saved and logged."""
    plain = OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(plain, dict)
    return plain  # pyright: ignore[reportReturnType]


def to_yaml(config: Any) -> str:
    """Return the resolved config as yaml, without credentials."""
    return OmegaConf.to_yaml(OmegaConf.create(redact(to_plain(config))))
