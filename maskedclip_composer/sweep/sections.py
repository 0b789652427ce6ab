"""Which of a sweep's shared settings concern a recipe."""

from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.errors import UserError
from maskedclip_composer.sweep.config import SweepConfig, SweepRunConfig


def shared_with(sweep: SweepConfig, run: SweepRunConfig) -> list[str]:
    """Return the shared overrides whose optional section a recipe has.

    data.unpaired.remote=... is left out where a recipe reads no unpaired images, objectives.mim.dim=32 where it has no
    mim: given to such a recipe it would switch the section on.
    """
    return [override for override in sweep.shared if _has_section(run, override)]


def refuse_idle(sweep: SweepConfig) -> None:
    """Refuse a shared override that concerns no recipe.

    Raises:
        UserError: Names it.
    """
    for override in sweep.shared:
        if not any(_has_section(run, override) for run in sweep.runs.values()):
            raise UserError(
                f"shared: {override} concerns no recipe of the sweep: none has its section.\n"
                "Check the key, or remove it."
            )


def _has_section(run: SweepRunConfig, override: str) -> bool:
    node: Any = _recipe(run.recipe, run.overrides)
    if node is None:
        return True
    cls: Any = TrainConfig
    for name in override.partition("=")[0].split(".")[:-1]:
        hint = get_type_hints(cls).get(name)
        part = next((option for option in (hint, *get_args(hint)) if is_dataclass(option)), None)
        if part is None:
            return True  # a plain value or an unknown key, which the recipe's own check names
        node = node.get(name) if isinstance(node, DictConfig) else None
        if node is None and type(None) in get_args(hint):
            return False
        cls = part
    return True


def _recipe(path: str, overrides: Sequence[str]) -> Any:
    """Return the recipe as it is written; None where it cannot be read, which is told when it is loaded."""
    try:
        return OmegaConf.merge(OmegaConf.load(Path(path)), OmegaConf.from_dotlist(list(overrides)))
    except Exception:  # OmegaConf's, yaml's and the system's own kinds
        return None
