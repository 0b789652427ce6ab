"""The loggers and callbacks that record a run, in the order in which they have to run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from composer.callbacks import LRMonitor, MemoryMonitor, SpeedMonitor
from composer.core import Callback
from composer.loggers import LoggerDestination

from maskedclip_composer.callbacks.config import TrackingConfig, WatchConfig, artifact_root
from maskedclip_composer.callbacks.diagnostics import Diagnostics, HostMemory
from maskedclip_composer.callbacks.metrics_file import MetricsFile
from maskedclip_composer.callbacks.mlflow_store import default_tracking_uri
from maskedclip_composer.callbacks.pictures import Pictures
from maskedclip_composer.callbacks.quiet import quiet_known_warnings
from maskedclip_composer.callbacks.redaction import redact
from maskedclip_composer.callbacks.run_record import RunRecord
from maskedclip_composer.callbacks.seeding import StepSeeding
from maskedclip_composer.callbacks.step_times import StepTimes
from maskedclip_composer.callbacks.tracking import FaultTolerantMLFlowLogger
from maskedclip_composer.callbacks.watch import Watch
from maskedclip_composer.export.origin import Origin
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD
from maskedclip_composer.types import Batch

SPEED_WINDOW = 10  # steps; SpeedMonitor logs no throughput before the window is full


def tracking_callbacks(
    config: TrackingConfig,
    *,
    run_folder: Path,
    run_name: str,
    output: Path,
    resolved_config: dict[str, Any],
    manifest: dict[str, Any],
    documents: Callable[[Path], list[Path]],
    seed: int,
    watch: WatchConfig | None = None,
    count_operations: Callable[[Batch], int] | None = None,
    origin: Origin | None = None,
    image_mean: tuple[float, ...] = IMAGE_MEAN,
    image_std: tuple[float, ...] = IMAGE_STD,
) -> tuple[list[LoggerDestination], list[Callback]]:
    """Build what records a run. Every rank gets the same list; off rank 0 nothing is written or sent.

    Args:
        config: What to record.
        run_folder: This run's folder, `<output>/<run_name>`.
        run_name: Name of the run; a resumed run has the same.
        output: Folder of all runs, where MLflow's database is unless the config or the environment names another.
        resolved_config: The whole config as nested dicts.
        manifest: What the data are, as JSON.
        documents: Collects what the data say of themselves, see `RunRecord`.
        seed: The run's seed.
        watch: When to warn; None takes the defaults.
        count_operations: Counts a step's useful operations from one rank's batch, see `StepTimes`.
        origin: Which weights the image encoder started from, if any.
        image_mean: What the model normalises images with, per channel in units of 0 to 1; pictures undo it.
        image_std: Likewise.

    Returns:
        Loggers and callbacks for composer.Trainer.
    """
    quiet_known_warnings()
    metrics_file = MetricsFile(run_folder / "metrics.jsonl")
    tracker = _build_tracker(config, run_name, run_folder, output, metrics_file.path) if config.mlflow else None
    watcher = Watch(watch or WatchConfig(), tracker)
    callbacks = [
        StepTimes(config.diagnostics_interval, count_operations),  # first, see there
        StepSeeding(seed),
        RunRecord(
            run_folder=run_folder,
            resolved_config=resolved_config,
            manifest=manifest,
            documents=documents,
            origin=origin,
            tracker=tracker,
            register=config.register,
        ),
        watcher,
        Diagnostics(config.diagnostics_interval, watcher),
        HostMemory(config.diagnostics_interval),
        LRMonitor(),
        SpeedMonitor(window_size=SPEED_WINDOW),
    ]
    if torch.cuda.is_available():
        callbacks.append(MemoryMonitor())
    if config.picture_interval:
        folder = run_folder / "pictures"
        callbacks.append(
            Pictures(config.picture_interval, config.num_pictures, folder, tracker, mean=image_mean, std=image_std)
        )
    return [metrics_file, tracker] if tracker is not None else [metrics_file], callbacks


def _build_tracker(
    config: TrackingConfig, run_name: str, run_folder: Path, output: Path, metrics_path: Path
) -> FaultTolerantMLFlowLogger:
    uri = config.tracking_uri or default_tracking_uri(output)
    return FaultTolerantMLFlowLogger(
        tracking_uri=uri,
        experiment=config.experiment,
        artifact_root=artifact_root(uri, output),
        run_name=run_name,
        run_folder=run_folder,
        tags=redact(config.tags),
        fallback=metrics_path,
    )
