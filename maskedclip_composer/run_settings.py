"""What a run was started with, and what may be different when it is continued. Light: without Composer."""

import re
from pathlib import Path

import yaml

from maskedclip_composer.callbacks.flatten import flatten
from maskedclip_composer.callbacks.redaction import redact
from maskedclip_composer.config import TrainConfig, to_plain
from maskedclip_composer.config_file import load_config
from maskedclip_composer.errors import UserError

# A resumed run may differ in these from the one that it continues: none of them changes what is computed, but for
# max_duration, which is there to train on, and what is done about faults. Not parallelism: its checkpoints are of
# another kind.
FREE = re.compile(
    r"output|run_name|checkpoint\..*|tracking\..*|image_encoder\.attention|text_encoder\.name"
    r"|dry_run|estimate\..*|watch\..*"
    # A run that a step has stopped may go on without it.
    r"|optimizer\.(non_finite|max_skipped)"
    # Not fp8, which changes the result, nor fused_optimizer, which AdamW takes from the checkpoint.
    r"|compute\.(packed|masked_only|distinct_texts|distinct_logits|compile|activation\..*|chunk_size)"
    r"|trainer\.(max_duration|progress_bar|log_to_console|console_log_interval|log_traces|python_log_level|dist_timeout)"
    r"|data\.(num_workers|cache_limit|download_retry|download_timeout|verify|(paired|unpaired)\.(remote|local))"
)


def recorded_settings(run_folder: Path) -> dict[str, str] | None:
    """Return the settings that a run's folder records, by dotted key; None where it records none."""
    record = run_folder / "config.yaml"
    return flatten(yaml.safe_load(record.read_text())) if record.is_file() else None


def refuse_other_settings(config: TrainConfig) -> None:
    """Refuse to continue a run with settings that would be ignored, or that its checkpoint does not fit.

    Raises:
        UserError: Lists what was different.
    """
    before = recorded_settings(config.run_folder)
    if before is None:
        return
    now = flatten(redact(to_plain(config)))
    if now.keys() - before.keys():
        before = _with_later_keys(config.run_folder) | before
    changed = [key for key in now if before.get(key) != now[key] and not FREE.fullmatch(key)]
    if changed:
        lines = "\n".join(f"{key}: {before.get(key)} then, {now[key]} now" for key in changed)
        raise UserError(
            f"run_name={config.run_name} was started with other settings:\n{lines}\n"
            "Choose another run_name, or the settings of then."
        )


def _with_later_keys(run_folder: Path) -> dict[str, str]:
    """Return the record as today's code reads it: keys that it did not know then have their defaults.

    A new key's default is what was done before there was the key.
    """
    try:
        return flatten(redact(to_plain(load_config(TrainConfig, str(run_folder / "config.yaml"), []))))
    except UserError:  # the record has a key that is gone, or what took the place of a password
        return {}
