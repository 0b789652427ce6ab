"""What a model card says of how a run went: cost, how to repeat it, and faults."""

import math
from collections.abc import Sequence

from maskedclip_composer.cards.markdown import Markdown, code, plain, table
from maskedclip_composer.cards.model_facts import not_recorded
from maskedclip_composer.cards.run_files import RunFiles, count_faults
from maskedclip_composer.cards.training_data import StreamData


def cost(run: RunFiles) -> Markdown:
    """Return device, time, steps and images."""
    if run.measured is None:
        return not_recorded(run.absent["metrics.jsonl"])
    last = run.measured.last
    device = str((run.provenance or {}).get("device", ""))
    ranks, _, name = device.partition(" x ")
    hours = last.get("time/total")
    per_step = sum(int(settings.get("batch_size") or 0) for settings in run.streams.values())
    rows: list[tuple[str, object]] = [
        ("device", name or not_recorded("provenance.json")),
        ("processes", ranks if name else not_recorded("provenance.json")),
        ("optimiser steps", f"{run.measured.steps:,}"),
        ("images a step", f"{per_step:,}"),
        ("images seen", f"{run.measured.steps * per_step:,}"),
    ]
    if hours is None:
        rows.append(("hours", not_recorded("time/total is not in metrics.jsonl")))
    else:
        rows.append(("hours", f"{hours:.3g}"))
        if ranks.isdigit():
            rows.append(("device hours", f"{hours * int(ranks):.3g}"))
    if (speed := last.get("throughput/samples_per_sec")) is not None:
        rows.append(("images a second, at the end", f"{speed:,.1f}"))
    rows.append(("energy", not_recorded("nothing in training measures it")))
    note = "Hours are those of steps as Composer counts them: without the start, and without steps that were undone."
    return _lines([*table(("", ""), rows), "", note])


def reproducibility(run: RunFiles, streams: Sequence[StreamData]) -> Markdown:
    """Return all that another run has to share."""
    provenance = run.provenance or {}
    ranks = str(provenance.get("device", "")).partition(" x ")[0]
    commit = provenance.get("git_commit")
    dirty = " (with changes that were not committed)" if provenance.get("git_dirty") else ""
    prompts = (run.manifest or {}).get("prompts") or {}
    unknown = run.absent.get("provenance.json", "the code was not in a git checkout")
    rows: list[tuple[str, object]] = [
        ("seed", run.config.get("seed", not_recorded("config.yaml names none"))),
        ("commit", f"{commit}{dirty}" if commit else not_recorded(unknown)),
        ("config", "config.yaml, all of it as resolved, beside this card"),
        ("encoder.safetensors", f"sha256 {run.encoder.sha256}" if run.encoder else not_recorded("no encoder file")),
    ]
    rows += [
        (f"index of {stream.name}", f"sha256 {stream.sha256}" if stream.sha256 else not_recorded("data_manifest.json"))
        for stream in streams
    ]
    if prompts:
        pack = f"{prompts.get('pack')}, version {prompts.get('version')}, sha256 {prompts.get('sha256')}"
        rows.append(("prompt pack", pack))
    versions = ", ".join(f"{name} {version}" for name, version in (provenance.get("versions") or {}).items())
    rows.append(("versions", versions or not_recorded(unknown)))
    command = code(f"composer -n {ranks if ranks.isdigit() else 'PROCESSES'} train.py config.yaml output=FOLDER")
    return _lines(
        [
            f"The run's own command line is not recorded; with the data at the same places, {command} trains it again.",
            "On a CPU, with these versions, the weights are then the same to the last bit; on a GPU not quite.",
            "",
            *table(("", ""), rows),
        ]
    )


def faults(run: RunFiles) -> Markdown:
    """Count steps that were not finite, by what was done about them."""
    finals = {
        name: value
        for name, value in (run.measured.last if run.measured else {}).items()
        if name.startswith("loss/train/")
    }
    ended = ", ".join(f"{plain(name.removeprefix('loss/train/'))} {value:.3g}" for name, value in finals.items())
    strange = [plain(name) for name, value in finals.items() if not math.isfinite(value)]
    lines = []
    if run.faults:
        lines += ["Steps whose loss or gradients were not finite (`faults.jsonl` names the photographs):", ""]
        lines += table(("what was done", "how often", "steps"), count_faults(run.faults))
    else:
        lines.append("No step that was not finite: there is no `faults.jsonl`, which is written at the first one.")
    lines += ["", f"Losses of the last step: {ended}." if ended else not_recorded("metrics.jsonl has no loss")]
    lines += ["", f"**Not finite at the end**: {', '.join(strange)}."] if strange else []
    lines += ["", "Interruptions and downloads that were tried again are not recorded."]
    return _lines(lines)


def _lines(lines: Sequence[str]) -> Markdown:
    return Markdown("\n".join(lines))
