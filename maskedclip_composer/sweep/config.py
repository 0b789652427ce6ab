"""A sweep: recipes that are trained one after the other and evaluated together."""

from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One recipe of a sweep.

    Attributes:
        recipe: Path of a yaml for train.py.
        overrides: key=value, as on train.py's command line; they win over the sweep's.
    """

    recipe: str = MISSING
    overrides: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """How the trained encoders are evaluated.

    Attributes:
        config: Path of a yaml for evaluate.py.
        overrides: key=value, as on evaluate.py's command line.
    """

    config: str = "yamls/evaluate.yaml"
    overrides: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """What a sweep file holds.

    Attributes:
        output: Folder of all runs and of the evaluation.
        ranks: Processes of each run, on this machine.
        shared: key=value for every recipe that has the key's section: data.unpaired.remote=... is left out where a
            recipe reads no unpaired images, objectives.mim.dim=... where it has no mim.
        runs: Recipes by the name of their run, in the order in which they are trained.
        evaluate: How all of them are evaluated; null trains alone.
    """

    output: str = "runs/sweep"
    ranks: int = 1
    shared: list[str] = field(default_factory=list)
    runs: dict[str, RunConfig] = MISSING
    evaluate: SuiteConfig | None = None

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise UserError(f"ranks={self.ranks} is not positive.\nUse 1, or the number of GPUs.")
        if not self.runs:
            raise UserError("runs is empty: nothing would be trained.\nWrite `runs: {NAME: {recipe: FILE.yaml}}`.")
        for override in self.shared:
            if not any(applies(override, run) for run in self.runs.values()):
                raise UserError(
                    f"shared: {override} concerns no recipe of the sweep: none has its section.\n"
                    "Check the key, or remove it."
                )

    def arguments(self, name: str) -> list[str]:
        """Return what train.py is called with for a run."""
        run = self.runs[name]
        shared = [override for override in self.shared if applies(override, run)]
        return [run.recipe, *shared, *run.overrides, f"output={self.output}", f"run_name={name}"]

    def resolved(self, name: str) -> TrainConfig:
        """Return the checked config of a run.

        Raises:
            UserError: As train.py would, with the run's name.
        """
        path, *overrides = self.arguments(name)
        try:
            return load_config(TrainConfig, path, overrides)
        except UserError as error:
            raise UserError(f"runs.{name}: {error}") from error


def applies(override: str, run: RunConfig) -> bool:
    """Tell whether a recipe has all optional sections that an override's key lies in."""
    if not Path(run.recipe).is_file():
        return True  # `resolved` says what is wrong
    node: Any = OmegaConf.merge(OmegaConf.load(run.recipe), OmegaConf.from_dotlist(run.overrides))
    cls: Any = TrainConfig
    for name in override.partition("=")[0].split(".")[:-1]:
        hint = get_type_hints(cls).get(name)
        part = next((option for option in (hint, *get_args(hint)) if is_dataclass(option)), None)
        node = node.get(name) if isinstance(node, DictConfig) else None
        if part is None:
            return True
        if node is None and type(None) in get_args(hint):
            return False
        cls = part
    return True
