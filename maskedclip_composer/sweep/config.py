"""What a sweep file says: several recipes that are trained one after the other and evaluated together."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from maskedclip_composer.errors import UserError

EVALUATION = "evaluation"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*")  # names a folder, a key of `checkpoints` and a row of the tables


@dataclass(frozen=True, kw_only=True)
class SweepRunConfig:
    """One run: a recipe and what differs from it.

    Attributes:
        recipe: Path of a yaml for train.py.
        overrides: key=value, as on the command line; they come after `shared`.
    """

    recipe: str = MISSING
    overrides: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class SweepEvaluationConfig:
    """One suite of all the runs.

    Attributes:
        config: Path of a yaml for evaluate.py.
        overrides: key=value, as on the command line; `checkpoints.NAME` adds an encoder that was not trained here.
    """

    config: str = "yamls/evaluate.yaml"
    overrides: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Several recipes and their evaluation; paths are relative to where the command is run.

    Attributes:
        name: Of the sweep and of its folder.
        output: Folder that it lies in: runs go to `<output>/<name>/<run>`, the suite to `<output>/<name>/evaluation`.
        ranks: Processes of each run and of the suite; above 1 they are started by Composer's launcher.
        values: Texts that the overrides use as `${values.NAME}`, so that a path is given once.
        shared: key=value for every run whose recipe has the key's section (`sections.py`).
        runs: By name, in the order in which they are trained and tabulated.
        evaluate: null trains only.
    """

    name: str = MISSING
    output: str = "runs"
    ranks: int = 1
    values: dict[str, str] = field(default_factory=dict)
    shared: list[str] = field(default_factory=list)
    runs: dict[str, SweepRunConfig] = MISSING
    evaluate: SweepEvaluationConfig | None = None

    def __post_init__(self):
        if not self.runs:
            raise UserError("runs is empty: nothing would be trained.\nAdd for example `mae: {recipe: FILE.yaml}`.")
        for name in (self.name, *self.runs):
            if not _NAME.fullmatch(name):
                raise UserError(f"{name!r} must be a plain name of letters, digits, _, + and -: it names a folder.")
        if EVALUATION in self.runs:
            raise UserError(f"runs.{EVALUATION} has the name of the suite's folder.\nChoose another name.")
        if self.ranks < 1:
            raise UserError(f"ranks={self.ranks} is not positive.\nUse the number of processes of a run.")
        given = {"shared": self.shared} | {f"runs.{name}.overrides": run.overrides for name, run in self.runs.items()}
        if self.evaluate is not None:
            given["evaluate.overrides"] = self.evaluate.overrides
        for key, overrides in given.items():
            for override in overrides:
                if override.split("=")[0] in ("run_name", "output"):
                    raise UserError(
                        f"{key} has {override}, which the sweep sets itself.\n"
                        "Use name and output of the sweep, and the names of its runs."
                    )

    @property
    def folder(self) -> Path:
        """Where the sweep's files are."""
        return Path(self.output) / self.name
