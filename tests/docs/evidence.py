"""Ways to hold a command to the program that it calls: nothing of a config or of options is said twice here."""

import argparse
import os
import runpy
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import yaml

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.evaluation.config import EvaluateConfig, load_protocols, load_tasks
from tests.docs.commands import ROOT


class Understood(BaseException):
    """The program's own parser has taken the words. No Exception, which programs catch."""


def understood(monkeypatch: pytest.MonkeyPatch, program: str | Path, words: list[str]) -> argparse.Namespace:
    """Start a script, or a module by its name, up to the place where its parser has taken `words`.

    Raises:
        AssertionError: The parser refuses them, or the program has no parser.
    """
    parse, taken = argparse.ArgumentParser.parse_args, []

    def stop(parser, given=None, namespace=None):
        taken.append(parse(parser, given, namespace))
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [str(program), *words])
    try:
        run_program(program)
    except Understood:
        return taken[0]
    except SystemExit as error:
        if "--help" in words and error.code == 0:
            return argparse.Namespace()
        raise AssertionError(f"{program} refuses {words}: exit status {error.code}") from error
    raise AssertionError(f"{program} never asked its parser about {words}")


def run_program(program: str | Path) -> None:
    """Run a script, or a module by its name, as Python does from the command line."""
    if isinstance(program, Path):
        runpy.run_path(str(program), run_name="__main__")
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found in sys.modules", category=RuntimeWarning)
        runpy.run_module(program, run_name="__main__")


def training_config(words: list[str]) -> TrainConfig:
    """Load a config as train.py does. Where the page has a … it leaves out the sets, and perhaps the recipe."""
    given = [word for word in words if word != "…"]
    path, *overrides = given if given and "=" not in given[0] else ["yamls/pretrain.yaml", *given]
    if "…" in words:
        sets = yaml.safe_load(Path(path).read_text())["data"].keys() & {"paired", "unpaired"}
        overrides += [
            f"data.{name}.remote=shards/{name}" for name in sorted(sets) if f"data.{name}.remote" not in given
        ]
    return load_config(TrainConfig, path, overrides)


def evaluation_config(words: list[str]) -> EvaluateConfig:
    """Load config, tasks and protocols as evaluate.py does."""
    path, *overrides = words
    config = load_config(EvaluateConfig, path, overrides)
    assert load_tasks(config, path)
    assert load_protocols(config, path)
    return config


def launched(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> argparse.Namespace:
    """Read `composer ...` as its launcher does."""
    from composer.cli import launcher

    monkeypatch.setattr(sys, "argv", ["composer", *words])
    return launcher._parse_args()


def make_target(words: list[str]) -> None:
    """Have make say what it would do."""
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def mlflow_command(words: list[str]) -> None:
    """Have mlflow's own command line take the options."""
    with warnings.catch_warnings(action="ignore"):  # of its import
        from mlflow.cli import cli

    with cli.make_context("mlflow", list(words), resilient_parsing=True) as context:
        name, command, options = cli.resolve_command(context, words)
        assert name is not None
        assert command is not None
        command.make_context(name, options, parent=context)


def installed(words: list[str]) -> None:
    """The extras exist, and the file of constraints."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        if "[" in word:
            name, _, extra = word.rstrip("]").partition("[")
            assert name in ("maskedclip-composer", ".")
            assert set(extra.split(",")) <= set(extras), word
    assert "-c" not in words or (ROOT / words[words.index("-c") + 1]).is_file()


def script_commands(script: str, words: list[str], folder: Path) -> list[list[str]]:
    """Run a shell script with stand-ins for the programs that it starts; return what it would have started."""
    programs = folder / "stand-ins"
    programs.mkdir()
    for name in ("composer", "python", "sleep"):
        # A file for each, named by the time: two of them may run side by side.
        (programs / name).write_text(f'#!/bin/sh\nprintf "%s\\037" {name} "$@" > "{folder}/log.$(date +%s%N).$$"\n')
        (programs / name).chmod(0o755)
    variables = {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(ROOT / script), *words], env=os.environ | variables)
    assert done.returncode == 0
    return [log.read_text().rstrip("\037").split("\037") for log in sorted(folder.glob("log.*"))]
