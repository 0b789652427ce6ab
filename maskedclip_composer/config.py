"""The config tree of a training run, and the one place where a yaml becomes dataclasses."""

import difflib
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

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

T = TypeVar("T")


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


def load_config(cls: type[T], path: str, overrides: list[str]) -> T:
    """Read a yaml, apply dotted overrides (`data.paired.batch_size=64`) and return the checked dataclass.

    Raises:
        UserError: The file is missing or is no yaml; a key is unknown (with the nearest known one), a value has the
            wrong type, a mandatory value is absent, or values contradict each other.
    """
    loaded = _read(Path(path))
    try:
        dotted = OmegaConf.from_dotlist(overrides)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"An override is not of the form key=value: {error}") from error
    for override in overrides:
        if "=" not in override or override.endswith("="):
            raise UserError(
                f"Override {override!r} is not of the form key=value, for example seed=3 or data.paired=null."
            )
    _refuse_bare_keys(loaded, cls, path)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(cls), loaded, dotted)
        result = OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        raise UserError(f"{path}: {_unknown_key(error)}") from error
    except MissingMandatoryValue as error:
        raise UserError(
            f"{path}: {error.full_key or error.key} is missing and has no default.\nAdd it to the yaml "
            "or give it as key=value."
        ) from error
    except OmegaConfBaseException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        where = f"{path}: {error.full_key}" if error.full_key else path
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error
    except (TypeError, AttributeError) as error:  # of OmegaConf, when a list meets a mapping
        raise UserError(f"{path}: {error}") from error
    assert isinstance(result, cls)
    return result


def to_plain(config: Any) -> dict[str, Any]:
    """Return the resolved config as nested dicts and lists, as it is printed, saved and logged."""
    plain = OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(plain, dict)
    return plain  # pyright: ignore[reportReturnType]


def to_yaml(config: Any) -> str:
    """Return the resolved config as yaml, without credentials."""
    return OmegaConf.to_yaml(OmegaConf.create(redact(to_plain(config))))


def _read(path: Path) -> DictConfig:
    if not path.is_file():
        siblings = [str(p) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(str(path), siblings, n=1, cutoff=0.3)
        hint = f"Did you mean {close[0]}?" if close else "Give the path of a yaml, for example yamls/pretrain.yaml."
        raise UserError(f"{path} does not exist.\n{hint}")
    try:
        loaded = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid yaml: {error}") from error
    if not isinstance(loaded, DictConfig):
        raise UserError(f"{path} must hold keys and values.")
    return loaded


def _refuse_bare_keys(loaded: DictConfig, cls: type, path: str, prefix: str = "") -> None:
    """Refuse `mim:` without a value: yaml reads it as null, which would silently mean off."""
    for name, hint in get_type_hints(cls).items():
        part = next((option for option in (hint, *get_args(hint)) if is_dataclass(option)), None)
        if part is None or name not in loaded:
            continue
        value = loaded._get_node(name)
        if isinstance(value, DictConfig) and not value._is_none():
            _refuse_bare_keys(value, part, path, f"{prefix}{name}.")  # pyright: ignore[reportArgumentType]
        elif type(None) in get_args(hint) and loaded[name] is None:
            raise UserError(
                f"{path}: {prefix}{name} has no value, which yaml reads as null, that is off.\n"
                f"Write `{name}: {{}}` to switch it on with its defaults, or remove the line."
            )


def _unknown_key(error: ConfigKeyError) -> str:
    first, *_ = str(error).splitlines()
    key = error.full_key or str(error.key)
    known = list(error.parent_node._metadata.object_type.__dataclass_fields__) if _is_structured(error) else []
    close = difflib.get_close_matches(key.rsplit(".", 1)[-1], known, n=1)
    if close:
        return f"unknown key {key}.\nDid you mean {close[0]}?"
    return f"unknown key {key}.\nKnown keys there: {', '.join(known)}." if known else first


def _is_structured(error: ConfigKeyError) -> bool:
    return hasattr(getattr(error.parent_node, "_metadata", None), "object_type") and hasattr(
        error.parent_node._metadata.object_type, "__dataclass_fields__"
    )
