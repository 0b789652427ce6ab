"""Checks the `trainer:` part of a yaml against composer.Trainer without importing Composer, which takes ten seconds."""

import ast
import difflib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from maskedclip_composer.errors import UserError

# What the run decides itself, and the key to use instead.
OWNED = {
    "model": "image_encoder, bridge, text_encoder and objectives",
    "train_dataloader": "data",
    "optimizers": "optimizer",
    "schedulers": "optimizer.warmup and optimizer.final_lr_factor",
    "algorithms": "objectives and optimizer",
    "callbacks": "tracking",
    "loggers": "tracking",
    "run_name": "run_name",
    "seed": "seed",
    "save_folder": "output and run_name",
    "save_interval": "checkpoint.interval",
    "save_num_checkpoints_to_keep": "checkpoint.keep",
    "autoresume": "checkpoint.resume",
    "parallelism_config": "parallelism",
}


def check_trainer_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that composer.Trainer does not have, or that another key of the yaml decides.

    Raises:
        UserError: Names the key and the one to use instead.
    """
    known = _trainer_arguments()
    for name in arguments:
        if name in OWNED:
            raise UserError(f"trainer.{name} is set from another part of the yaml.\nUse {OWNED[name]}.")
        if name == "device_train_microbatch_size":
            raise UserError(
                "trainer.device_train_microbatch_size would split the batch of the contrastive loss and change it.\n"
                "Lower data.*.batch_size, use more ranks, or parallelism=fsdp."
            )
        if name == "compile_config":
            raise UserError("trainer.compile_config is not supported: views are computed lazily.\nRemove it.")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean trainer.{close[0]}?" if close else "See the arguments of composer.Trainer."
            raise UserError(f"trainer.{name} is no argument of composer.Trainer.\n{hint}")
    if not arguments.get("max_duration"):
        raise UserError("trainer.max_duration is missing.\nAdd for example `max_duration: 200ep`.")


@cache
def _trainer_arguments() -> list[str]:
    spec = importlib.util.find_spec("composer")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "trainer" / "trainer.py").read_text()
    trainer = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "Trainer")
    init = next(n for n in trainer.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    return [a.arg for a in init.args.args + init.args.kwonlyargs if a.arg != "self"]
