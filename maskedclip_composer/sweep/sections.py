"""Which of a sweep's shared settings concern a recipe."""

from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

from maskedclip_composer.config import ObjectivesConfig, TrainConfig
from maskedclip_composer.errors import UserError
from maskedclip_composer.sweep.config import SweepConfig, SweepRunConfig


def shared_with(sweep: SweepConfig, run: SweepRunConfig) -> list[str]:
    """Return the shared overrides whose optional section a recipe has.

    data.unpaired.remote=... is left out where a recipe reads no unpaired images, objectives.mim.dim=32 where it has no
    mim: given to such a recipe it would switch the section on.
    """
    recipe = _recipe(run)
    return [override for override in sweep.shared if _has_section(recipe, override)]


def refuse_idle(sweep: SweepConfig) -> None:
    """Refuse a shared override that concerns no recipe.

    Raises:
        UserError: Names it.
    """
    recipes = [_recipe(run) for run in sweep.runs.values()]
    for override in sweep.shared:
        if not any(_has_section(recipe, override) for recipe in recipes):
            raise UserError(
                f"shared: {override} concerns no recipe of the sweep: none has its section.\n"
                "Check the key, or remove it."
            )


def _has_section(recipe: Any, override: str) -> bool:
    node = recipe
    if node is None:
        return True
    cls: Any = TrainConfig
    if override.startswith("teacher."):  # null there means the defaults, wherever an objective has a teacher
        known = get_type_hints(ObjectivesConfig)
        names = [name for name in node.get("objectives") or {} if name in known]
        return any(_dataclass_of(known[name]).needs_teacher for name in names)
    for name in override.partition("=")[0].split(".")[:-1]:
        hint = get_type_hints(cls).get(name)
        part = _dataclass_of(hint)
        if part is None:
            return True  # a plain value or an unknown key, which the recipe's own check names
        node = node.get(name) if isinstance(node, DictConfig) else None
        if node is None and type(None) in get_args(hint):
            return False
        cls = part
    return True


def _dataclass_of(hint: Any) -> Any:
    return next((option for option in (hint, *get_args(hint)) if is_dataclass(option)), None)


def _recipe(run: SweepRunConfig) -> Any:
    """Return the recipe as it is written; None where it cannot be read, which is told when it is loaded."""
    try:
        return OmegaConf.merge(OmegaConf.load(Path(run.recipe)), OmegaConf.from_dotlist(list(run.overrides)))
    except Exception:  # OmegaConf's, yaml's and the system's own kinds
        return None
