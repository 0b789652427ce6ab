"""The config tree of a training run."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from omegaconf import MISSING, OmegaConf

from maskedclip_composer.callbacks.config import TrackingConfig, WatchConfig
from maskedclip_composer.callbacks.redaction import redact
from maskedclip_composer.compute import ComputeConfig
from maskedclip_composer.costs.config import EstimateConfig
from maskedclip_composer.data.config import DataConfig
from maskedclip_composer.errors import UserError
from maskedclip_composer.models.branch import BridgeConfig
from maskedclip_composer.models.teacher import TeacherConfig
from maskedclip_composer.models.text import TextEncoderConfig
from maskedclip_composer.models.vit import ImageEncoderConfig
from maskedclip_composer.objectives.att_mim import AttMimConfig
from maskedclip_composer.objectives.base import ObjectiveConfig
from maskedclip_composer.objectives.dinov2 import Dinov2Config
from maskedclip_composer.objectives.ent_mlm import EntMlmConfig
from maskedclip_composer.objectives.integrity_clip import IntegrityClipConfig
from maskedclip_composer.objectives.lg_clip import LgClipConfig
from maskedclip_composer.objectives.mfd import MfdConfig
from maskedclip_composer.objectives.mim import MimConfig
from maskedclip_composer.objectives.patch_sentence import PatchSentenceConfig
from maskedclip_composer.optim import OptimizerConfig
from maskedclip_composer.times import check_time
from maskedclip_composer.trainer_arguments import check_trainer_arguments

_NAME_BYTES = 200  # a file system allows 255; names of files aside are longer
# What the keys of `data` give to the objectives that need them.
_WHAT = {
    "paired": "images with texts",
    "entities": "entity spans of the texts",
    "sentences": "sentences of the texts",
    "crops": "several crops of each image",
}


@dataclass(frozen=True, kw_only=True)
class ObjectivesConfig:
    """Which losses are on: a key that is present switches its objective on, also as `{}`.

    Adding an objective is one file and one line here; the losses are added up in this order. Objectives that learn a
    joint space of images and texts stand before those that look something up in it.
    """

    mim: MimConfig | None = None
    lg_clip: LgClipConfig | None = None
    mfd: MfdConfig | None = None
    integrity_clip: IntegrityClipConfig | None = None
    att_mim: AttMimConfig | None = None
    ent_mlm: EntMlmConfig | None = None
    patch_sentence: PatchSentenceConfig | None = None
    dinov2: Dinov2Config | None = None

    def present(self) -> dict[str, ObjectiveConfig]:
        """Return the objectives that are on, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def __post_init__(self):
        present = self.present()
        if not present:
            raise UserError("objectives is empty: nothing would be learnt.\nSwitch one on, for example `mim: {}`.")
        lonely = [name for name, config in present.items() if config.needs_joint_space]
        if lonely and not any(config.is_two_tower for config in present.values()):
            raise UserError(
                f"objectives.{lonely[0]} needs a space in which images and texts are aligned, and no objective learns "
                "one.\nAdd `lg_clip: {weight: 1.0}`, or integrity_clip."
            )
        if self.mfd is not None and not any(config.trains_bridge for config in present.values()):
            raise UserError(
                "objectives.mfd is on without an objective that trains the bridge, whose features it distils.\n"
                "Add `lg_clip: {}` or remove mfd."
            )


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints, written to `<output>/<run_name>/checkpoints`.

    Attributes:
        interval: A Composer time such as 1ep or 500ba.
        keep: Keep the newest so many; -1 keeps all.
        resume: Continue from the newest checkpoint of this run_name when there is one.
        trust: Continue also from a checkpoint that could run code when it is read, with a warning instead of an error.
    """

    interval: str = "1ep"
    keep: int = 2
    resume: bool = True
    trust: bool = False

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
        from_weights: What else starts from the source of `image_encoder.weights`: bridge, text_encoder, teacher, and
            objectives by name, with their heads and decoders; or all, for whatever both have (docs/recipes.md).
        teacher: The momentum teacher of mfd and dinov2; null takes its defaults where an objective has one.
        mask_ratio: Share of patches that random masking removes.
        parallelism: ddp, or fsdp (FSDP2: parameters, gradients and optimiser state sharded over the ranks).
        dry_run: Say what the run would cost, and train nothing (docs/costs.md).
        estimate: What the dry run assumes.
        trainer: Arguments of composer.Trainer, for example max_duration: 200ep.
    """

    run_name: str = MISSING
    output: str = "runs"
    seed: int = 17
    data: DataConfig = MISSING
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    from_weights: list[str] = field(default_factory=list)
    teacher: TeacherConfig | None = None
    mask_ratio: float = 0.75
    objectives: ObjectivesConfig = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    parallelism: Literal["ddp", "fsdp"] = "ddp"
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    dry_run: bool = False
    estimate: EstimateConfig = field(default_factory=EstimateConfig)
    trainer: dict[str, Any] = MISSING

    def __post_init__(self):
        self._check_objectives()
        self._check_from_weights()
        if self.seed < 0:
            raise UserError(f"seed={self.seed} is negative.\nUse 0 or more.")
        if not 0 < self.mask_ratio < 1:
            raise UserError(f"mask_ratio={self.mask_ratio} is outside (0, 1).\nThe paper's value is 0.75.")
        is_name = Path(self.run_name).name == self.run_name and self.run_name.isprintable()
        if not is_name or self.run_name in ("", ".", "..") or len(self.run_name.encode()) > _NAME_BYTES:
            raise UserError(f"run_name={self.run_name!r} must be a plain name: it names a folder below {self.output}.")
        check_trainer_arguments(self.trainer)

    def _check_objectives(self) -> None:
        """Refuse objectives without their data, and data and modules without an objective that reads or trains them."""
        objectives = self.objectives.present()
        names = ", ".join(objectives)
        for name, objective in objectives.items():
            missing = sorted(key for key in objective.needs if getattr(self.data, key) is None)
            if missing:
                raise UserError(
                    f"objectives.{name} needs {_WHAT[missing[0]]}, but data.{missing[0]} is not given.\n"
                    f"Add data.{missing[0]}, or remove objectives.{name}."
                )
        for key in ("entities", "sentences", "crops"):
            if getattr(self.data, key) is not None and not any(key in o.needs for o in objectives.values()):
                raise UserError(
                    f"data.{key} is given, but no objective reads {_WHAT[key]} (objectives: {names}).\n"
                    f"Remove data.{key}, or add an objective that does."
                )
        if self.mask_ratio != TrainConfig.mask_ratio and not any(o.masks_at_random for o in objectives.values()):
            raise UserError(
                f"mask_ratio={self.mask_ratio} is given, but no objective masks at random (objectives: {names}).\n"
                "Remove it; att_mim has a mask_ratio of its own."
            )
        images = sum(stream.batch_size for stream in self.data.streams().values())
        if self.objectives.dinov2 is not None and self.objectives.dinov2.koleo_weight and images < 2:
            raise UserError(
                "objectives.dinov2.koleo_weight: one image a step has no neighbour to be spread from.\n"
                "Raise data.*.batch_size, or set objectives.dinov2.koleo_weight=0."
            )
        if self.bridge.depth > 0 and not any(objective.trains_bridge for objective in objectives.values()):
            raise UserError(
                f"bridge.depth={self.bridge.depth}, but no objective trains the bridge (objectives: {names}).\n"
                "Write `bridge: {depth: 0}`, or add `lg_clip: {}` to the objectives."
            )
        if self.data.unpaired is not None and not any(objective.uses_unpaired for objective in objectives.values()):
            raise UserError(
                f"data.unpaired is given, but no objective uses images without texts (objectives: {names}).\n"
                "Remove it (data.unpaired=null), or add `mim: {}` to the objectives."
            )
        if self.compute.fp8 == "teacher" and not self.with_teacher:
            raise UserError(
                f"compute.fp8=teacher, but no objective has a teacher (objectives: {names}).\n"
                "Use none or linears, or add `mfd: {}` to the objectives."
            )
        if self.teacher is not None and not self.with_teacher:
            raise UserError(
                f"teacher is given, but no objective has one (objectives: {names}).\n"
                "Remove it, or add `mfd: {}` to the objectives."
            )

    def _check_from_weights(self) -> None:
        names = list(self.from_weights)
        if names and self.image_encoder.weights is None:
            raise UserError(
                f"from_weights={names} is given, but image_encoder.weights, the source, is not.\n"
                "Write image_encoder.weights=SOURCE, or remove from_weights."
            )
        if len(set(names)) < len(names) or ("all" in names and len(names) > 1):
            raise UserError(f"from_weights={names} names something twice.\nName each part once, or all alone.")
        strangers = [name for name in names if name not in ("all", *self.parts)]
        if strangers:
            raise UserError(
                f"from_weights={names}: {strangers[0]} is no part of this run.\n"
                f"Beside the image encoder it has {', '.join(self.parts)}."
            )

    @property
    def parts(self) -> list[str]:
        """Return the names of what the network has beside the image encoder."""
        present = {"bridge": self.bridge.depth > 0, "text_encoder": self.reads_texts, "teacher": self.with_teacher}
        return [*(name for name, is_there in present.items() if is_there), *self.objectives.present()]

    @property
    def reads_texts(self) -> bool:
        """Whether an objective reads the texts of the paired images."""
        return any("paired" in objective.needs for objective in self.objectives.present().values())

    @property
    def with_teacher(self) -> bool:
        """Whether an objective reads features of a momentum teacher."""
        return any(objective.needs_teacher for objective in self.objectives.present().values())

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
