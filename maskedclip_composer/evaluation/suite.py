"""A suite from config to results: every cell once, each saved when it is done."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from composer.utils import dist, get_device
from filelock import FileLock
from tqdm import tqdm

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.config import to_yaml
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.cells import (
    Cell,
    Outcome,
    Suite,
    load_outcome,
    load_outcomes,
    picture_folder,
    save_outcome,
    save_results,
    save_suite,
    save_test_split,
)
from maskedclip_composer.evaluation.config import EvaluateConfig
from maskedclip_composer.evaluation.data import LabelledData
from maskedclip_composer.evaluation.decoded import DecodedSplit, decode_all
from maskedclip_composer.evaluation.encoders.load import load
from maskedclip_composer.evaluation.features import Features
from maskedclip_composer.evaluation.keep_classifier import keep_classifier, without_classifier
from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.pictures import save_pictures
from maskedclip_composer.evaluation.plan import joined, open_task, plan
from maskedclip_composer.evaluation.protocols.base import Fit, Problem
from maskedclip_composer.evaluation.protocols.config import ProtocolConfig
from maskedclip_composer.evaluation.protocols.fit import fit
from maskedclip_composer.evaluation.ranks import DIST_TIMEOUT, gather_objects, rank
from maskedclip_composer.evaluation.tasks import TaskConfig
from maskedclip_composer.evaluation.tracking import SuiteTracker
from maskedclip_composer.rank_failure import share_failures


def evaluate(config: EvaluateConfig, tasks: dict[str, TaskConfig], protocols: dict[str, ProtocolConfig]) -> Path:
    """Evaluate every encoder on every task by every protocol, and return the suite's folder.

    Everything is checked before the first cell: encoders load strictly, labels are read, prompts exist. A cell is saved
    when it is done; a suite that is started again continues, and may have further encoders, tasks, protocols, amounts
    and seeds.

    Raises:
        UserError: Encoders, data or config do not work together, or are not those that the suite was started with.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        dist.initialize_dist(get_device(None), timeout=DIST_TIMEOUT)
        share_failures()
    data = {name: open_task(config, task) for name, task in tasks.items()}
    planned = plan(config, tasks, protocols, data)
    folder = config.folder
    suite = planned
    if rank() == 0:
        with _alone(folder):
            suite = joined(folder, planned, keep_baseline=config.baseline is None)
            _start(folder, config, suite, data)
    tracker = SuiteTracker(config, suite, planned.planned) if rank() == 0 else None
    # One rank's disk decides what is done, lest the others wait for it in vain.
    done = {cell for cell in planned.planned if load_outcome(folder, cell)} if rank() == 0 else set()
    done = gather_objects(done)[0]
    if config.save_models and rank() == 0:
        without_classifier(folder, done, protocols)
    todo = [cell for cell in planned.planned if cell not in done]
    with tqdm(total=len(planned.planned), initial=len(done), desc="cells", disable=rank() > 0) as progress:
        for cell, problem in _problems(config, tasks, data, todo):
            progress.set_postfix_str(cell.name)
            keep = None
            if tracker is not None and config.save_models:
                keep = partial(keep_classifier, folder, suite, cell, problem, protocols[cell.protocol])
            outcome = run_cell(cell, problem, protocols[cell.protocol], keep)
            if tracker is not None:
                if suite.is_pictured(cell):  # first: what is saved as done is not done again
                    save_pictures(folder / picture_folder(cell), problem, outcome)
                save_outcome(folder, cell, outcome)
                tracker.log(cell, outcome)
            progress.update()
    if tracker is not None:
        save_results(folder, list(load_outcomes(folder)))
        place = tracker.close()
        with _alone(folder):
            suite = joined(folder, suite, keep_baseline=False)
            complete = all(load_outcome(folder, cell) for cell in suite.planned)
            save_suite(folder, replace(suite, complete=complete, mlflow=place or suite.mlflow))
    return folder


def _alone(folder: Path) -> FileLock:
    """Keep other processes, which may work at other cells of the suite, from writing suite.json meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(str(folder / ".lock"))


def run_cell(
    cell: Cell, problem: Problem, protocol: ProtocolConfig, keep: Callable[[Fit, Outcome], None] | None = None
) -> Outcome:
    """Train and score one cell; `keep` is given what was trained."""
    start = time.monotonic()
    data = problem.data
    rows = np.arange(0) if protocol.zero_shot is not None else data.train.draw(cell.amount, cell.seed)
    try:
        result = fit(protocol, problem, rows, cell.seed)
    except UserError as error:
        raise UserError(
            f"{cell.name}: {error}\nOther settings need a protocol file of another name; what is done stays."
        ) from error
    probabilities = result.probabilities.astype(np.float32)  # as they are stored, so that both give the same scores
    trained = None if protocol.zero_shot is not None else data.trained
    outcome = Outcome(
        metrics=classification_metrics(probabilities, data.test.one_hot, data.kind, trained=trained),
        train_images=len(rows),
        steps=result.steps,
        val_roc=result.val_roc,
        details=result.details,
        seconds=round(time.monotonic() - start, 2),
        probabilities=probabilities,
    )
    if keep is not None:
        keep(result, outcome)
    return outcome


def _start(folder: Path, config: EvaluateConfig, suite: Suite, data: dict[str, LabelledData]) -> None:
    """Write what the cells share."""
    write_whole(folder / "config.yaml", to_yaml(config))
    for name, labelled in data.items():
        photographs = labelled.test.photographs
        records = [photographs.describe(row) for row in range(len(labelled.test))]
        save_test_split(folder, name, records, photographs.patients, photographs.labels)
    save_suite(folder, suite)


def _problems(
    config: EvaluateConfig, tasks: dict[str, TaskConfig], data: dict[str, LabelledData], cells: list[Cell]
) -> Iterator[tuple[Cell, Problem]]:
    """Yield each cell with what it needs, opening photographs once per task and encoders once per task."""
    photographs: dict[str, DecodedSplit] = {}
    problem: Problem | None = None
    last: tuple[str, str] = ("", "")
    for cell in cells:
        if cell.task != last[0]:
            photographs.clear()  # before the next set fills the memory
            photographs = decode_all(data[cell.task], memory=config.memory, workers=config.workers)
        if problem is None or (cell.task, cell.encoder) != last:
            problem = None
            gc.collect()
            source = config.checkpoints[cell.encoder]
            encoder = load(source, image_size=config.image_size)
            problem = Problem(
                encoder=encoder,
                source=source,
                task=tasks[cell.task],
                data=data[cell.task],
                photographs=photographs,
                features=Features(
                    encoder=encoder,
                    splits=photographs,
                    file=config.folder / "features" / cell.task / f"{cell.encoder}.safetensors",
                    batch_size=config.batch_size,
                    workers=config.workers,
                ),
                batch_size=config.batch_size,
                workers=config.workers,
            )
        last = (cell.task, cell.encoder)
        yield cell, problem
