"""What the `trainer:` part of a yaml may hold: the arguments of composer.Trainer that nothing else decides."""

import difflib
from collections.abc import Mapping
from typing import Any

from maskedclip_composer.errors import UserError
from maskedclip_composer.times import check_time

ALLOWED = (
    "max_duration",
    "precision",
    "device",
    "progress_bar",
    "log_to_console",
    "console_log_interval",
    "log_traces",
    "python_log_level",
    "deterministic_mode",
    "dist_timeout",
    "ddp_sync_strategy",
)

# What users of Composer look for here, and the key to use instead.
ELSEWHERE = {
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
    "load_path": "checkpoint.resume and the run_name of the run to continue",
    "parallelism_config": "parallelism",
}


def check_trainer_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse what another key of the yaml decides, and what would make a run do something else than it says.

    Raises:
        UserError: Names the key and the one to use instead.
    """
    for name in arguments:
        if name in ELSEWHERE:
            raise UserError(f"trainer.{name} is set from another part of the yaml.\nUse {ELSEWHERE[name]}.")
        if name == "device_train_microbatch_size":
            raise UserError(
                "trainer.device_train_microbatch_size would split the batch of the contrastive loss and change it.\n"
                "Lower data.*.batch_size, use more ranks, or parallelism=fsdp."
            )
        if name not in ALLOWED:
            close = difflib.get_close_matches(name, ALLOWED, n=1)
            hint = f"Did you mean trainer.{close[0]}?" if close else f"Known: {', '.join(ALLOWED)}."
            raise UserError(f"trainer.{name} is not available.\n{hint}")
    if not arguments.get("max_duration"):
        raise UserError("trainer.max_duration is missing.\nAdd for example `max_duration: 200ep`.")
    check_time("trainer.max_duration", arguments["max_duration"])
    precision = arguments.get("precision")
    if precision not in (None, "fp32", "amp_bf16", "amp_fp16"):
        raise UserError(f"trainer.precision={precision} is not available.\nUse fp32, amp_bf16 or amp_fp16.")
    device = arguments.get("device")
    if device not in (None, "cpu", "gpu"):
        raise UserError(f"trainer.device={device} is not available.\nUse cpu or gpu, or leave it out.")
