"""What a suite is going to do, checked before it does anything."""

import hashlib
import logging
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.callbacks.run_record import device_name, git_state, package_versions
from maskedclip_composer.config import to_plain
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation import training_run
from maskedclip_composer.evaluation.cells import Cell, EncoderFacts, Suite, TaskFacts, load_suite
from maskedclip_composer.evaluation.config import EvaluateConfig
from maskedclip_composer.evaluation.data import SPLITS, LabelledData, load_labelled
from maskedclip_composer.evaluation.encoders.fingerprint import fingerprint
from maskedclip_composer.evaluation.encoders.load import load
from maskedclip_composer.evaluation.kinds import Amount
from maskedclip_composer.evaluation.protocols.config import ProtocolConfig
from maskedclip_composer.evaluation.protocols.finetune import check_batch
from maskedclip_composer.evaluation.protocols.fit import is_random
from maskedclip_composer.evaluation.protocols.zero_shot import check_prompts, objection
from maskedclip_composer.evaluation.tasks import TaskConfig

log = logging.getLogger(__name__)


def open_task(config: EvaluateConfig, task: TaskConfig) -> LabelledData:
    """Open a task's photographs and labels, below `data_root` where its yaml gives no absolute place."""
    place = task.data
    if "://" not in place and not Path(place).is_absolute():
        place = f"{config.data_root.rstrip('/')}/{place}"
    return load_labelled(place, cache=config.data_cache, kind=task.kind, classes=task.classes, names=task.names or None)


def plan(
    config: EvaluateConfig,
    tasks: dict[str, TaskConfig],
    protocols: dict[str, ProtocolConfig],
    data: dict[str, LabelledData],
) -> Suite:
    """List every cell, and what is known of encoders and tasks; encoders are loaded once, strictly, to know them.

    Raises:
        UserError: An encoder cannot be loaded, a class has no prompts, a batch does not divide over the ranks, or no
            cell is possible.
    """
    check_prompts(protocols, tasks, {name: labelled.classes for name, labelled in data.items()})
    for protocol in protocols.values():
        if protocol.finetune is not None:
            check_batch(protocol.finetune)
    cells, notes = _cells(config, tasks, protocols)
    notes += seen(config, tasks)
    return Suite(
        complete=False,
        baseline=config.baseline or next(iter(config.checkpoints)),
        planned=cells,
        notes=notes,
        encoders={name: _encoder_facts(config, source, tasks, data) for name, source in config.checkpoints.items()},
        tasks={name: _task_facts(tasks[name], data[name]) for name in tasks},
        protocols={name: to_plain(protocol) for name, protocol in protocols.items()},
        provenance=git_state(Path(__file__).parent) | {"versions": package_versions(), "device": device_name()},
    )


def _cells(
    config: EvaluateConfig, tasks: dict[str, TaskConfig], protocols: dict[str, ProtocolConfig]
) -> tuple[list[Cell], list[str]]:
    """Return the cells, task by task and encoder by encoder, and what is left out."""
    notes: list[str] = []
    cells: list[Cell] = []
    for task, encoder, (name, protocol) in product(tasks, config.checkpoints, protocols.items()):
        if protocol.zero_shot is not None and (note := _zero_shot_note(config, tasks, task, encoder, name)):
            notes.append(note)
            continue
        for amount in [Amount()] if protocol.zero_shot is not None else config.amounts:
            # Where nothing is random, a second seed would be the first again.
            seeds = 1 if amount.is_whole and not is_random(protocol) else config.seeds
            cells += [
                Cell(encoder=encoder, task=task, protocol=name, amount=amount, seed=seed) for seed in range(seeds)
            ]
    notes = list(dict.fromkeys(notes))
    if not cells:
        raise UserError("evaluate: nothing can be evaluated.\n" + "\n".join(notes))
    for note in notes:
        log.warning(note)
    return cells, notes


def seen(config: EvaluateConfig, tasks: dict[str, TaskConfig]) -> list[str]:
    """Say which encoders of others are known to have been trained on a task's data set."""
    return [
        f"Contaminated: the pre-training of {encoder} holds photographs of {task.title} ({where})."
        for encoder, source in config.checkpoints.items()
        for task in tasks.values()
        for prefix, where in task.seen_by.items()
        if source.startswith(f"{prefix}:")
    ]


def _zero_shot_note(
    config: EvaluateConfig, tasks: dict[str, TaskConfig], task: str, encoder: str, protocol: str
) -> str:
    """Say why a cell cannot be; empty where it can."""
    if tasks[task].prompts is None:
        return f"{_left_out(task, protocol)}it needs words for the classes, and the task's yaml has no `prompts`."
    reason = objection(config.checkpoints[encoder], config.image_size)
    return f"{_left_out(encoder, protocol)}{reason}." if reason else ""


def _left_out(subject: str, protocol: str) -> str:
    """Begin a note on what an encoder or a task cannot be part of."""
    return f"{subject} by {protocol} is left out: "


def _encoder_facts(
    config: EvaluateConfig, source: str, tasks: dict[str, TaskConfig], data: dict[str, LabelledData]
) -> EncoderFacts:
    encoder = load(source, image_size=config.image_size)
    run = training_run.training_run(source)
    facts = EncoderFacts(source=redact_text(source), description=encoder.description, fingerprint=fingerprint(encoder))
    if source.startswith("random:"):
        return replace(facts, paired=0, unpaired=0, contaminated=dict.fromkeys(tasks, 0))
    if run is None:
        return replace(facts, contaminated=dict.fromkeys(tasks))
    seen: dict[str, int | None] = {}
    for name, labelled in data.items():
        hashes = labelled.test.photographs.hashes
        known = training_run.contaminated(run, hashes, training_run.perceptual_hashes(labelled.place, hashes))
        seen[name] = None if known is None else int(known.sum())
    return replace(facts, recipe=training_run.recipe(run), contaminated=seen, **training_run.num_images(run))


def _task_facts(task: TaskConfig, data: LabelledData) -> TaskFacts:
    prompts = to_plain(task.prompts) if task.prompts is not None else None
    digest = hashlib.sha256(f"{data.kind} {data.classes} {prompts}\n".encode())
    for split in SPLITS:
        part = getattr(data, split)
        for row in range(len(part)):
            labels = "|".join(part.photographs.labels[row])
            digest.update(f"{split} {part.photographs.names[row]} {part.photographs.hashes[row]} {labels}\n".encode())
    return TaskFacts(
        title=task.title,
        kind=data.kind,
        classes=list(data.classes),
        names=list(data.names),
        images={split: len(getattr(data, split)) for split in SPLITS},
        untrained=[code for code, trained in zip(data.classes, data.trained, strict=True) if not trained],
        fingerprint=digest.hexdigest(),
        source=task.source,
    )


def joined(folder: Path, new: Suite, *, keep_baseline: bool) -> Suite:
    """Join a suite to what is in its folder already, so that it is continued.

    Args:
        folder: Of the suite.
        new: What is asked now.
        keep_baseline: Whether the baseline stays what it was.

    Raises:
        UserError: Cells there are of other weights, labels or settings under the same names.
    """
    if not (folder / "suite.json").is_file():
        return new
    old = load_suite(folder)
    changes = [
        f"the weights of checkpoints.{name} ({facts.description})"
        for name, facts in new.encoders.items()
        if name in old.encoders and old.encoders[name].fingerprint != facts.fingerprint
    ]
    changes += [
        f"the photographs or labels of task {name}"
        for name, facts in new.tasks.items()
        if name in old.tasks and old.tasks[name].fingerprint != facts.fingerprint
    ]
    changes += [
        f"the settings of protocol {name}"
        for name, settings in new.protocols.items()
        if name in old.protocols and old.protocols[name] != settings
    ]
    if changes:
        raise UserError(
            f"{folder} holds a suite in which {' and '.join(changes)} were others.\n"
            "Give another run_name=, or move the folder away."
        )
    encoders = {
        name: replace(facts, contaminated=old.encoders[name].contaminated | facts.contaminated)
        if name in old.encoders
        else facts
        for name, facts in new.encoders.items()
    }
    return replace(
        new,
        baseline=old.baseline if keep_baseline else new.baseline,
        planned=list(dict.fromkeys([*old.planned, *new.planned])),
        notes=list(dict.fromkeys([*(note for note in old.notes if not _is_settled(note, new)), *new.notes])),
        encoders=old.encoders | encoders,
        tasks=old.tasks | new.tasks,
        protocols=old.protocols | new.protocols,
        provenance={key: _both(old.provenance.get(key, value), value) for key, value in new.provenance.items()},
        mlflow=old.mlflow,
    )


def _is_settled(note: str, new: Suite) -> bool:
    """Tell whether cells that a note leaves out are planned now."""
    subjects = {(subject, cell.protocol) for cell in new.planned for subject in (cell.encoder, cell.task)}
    return any(note.startswith(_left_out(*subject)) for subject in subjects) and note not in new.notes


def _both(old: Any, new: Any) -> Any:
    """Return what cells of several days were made with; commits and machines may differ between them."""
    if isinstance(new, dict):
        return {key: _both(old.get(key, value), value) for key, value in new.items()}
    known = str(old).split("; ")
    return old if str(new) in known else f"{old}; {new}"
