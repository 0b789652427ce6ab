"""Folders as train.py and evaluate.py leave them, without a training or an evaluation."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

CONFIG = {
    "run_name": "tiny",
    "objectives": {"mim": {"weight": 1.0}, "lg_clip": {"max_logit_scale": 100.0}, "mfd": None},
    "optimizer": {"warmup": "1ep", "max_grad_norm": 1.0},
    "parallelism": "ddp",
    "watch": {"grace": 10},
    "estimate": {"price_per_gpu_hour": None},
    "trainer": {"max_duration": "12ep"},
}
STEPS, EPOCH = 120, 10


def curves(steps: int = STEPS) -> dict[str, np.ndarray]:
    """A run in good health: losses fall, features spread, the speed is steady."""
    noise = np.random.default_rng(0).normal(size=(8, steps))
    time = np.arange(steps) / steps
    return {
        "loss/train/total": 4 - 2 * time + 0.05 * noise[0],
        "loss/train/mim": 1 - 0.5 * time + 0.02 * noise[1],
        "loss/train/lg_clip": 3 - 1.5 * time + 0.04 * noise[2],
        "diagnostics/lg_clip/image_variance": 0.3 + 0.2 * time + 0.01 * noise[3],
        "diagnostics/lg_clip/logit_scale": 14 + time,
        "diagnostics/lg_clip/above_floor": 2 - time + 0.05 * noise[4],
        "diagnostics/gradient_norm": 1 + 0.1 * noise[5] ** 2,
        "lr-AdamW/group0": 1e-4 * (1 - time),
        "lr-AdamW/group1": 1e-4 * (1 - time),
        "throughput/samples_per_sec": 100 + noise[6],
        "time/step": 0.64 + 0.01 * noise[7],
        "time/data_wait_share": np.full(steps, 0.02),
        "time/total": 2 * (np.arange(steps) + 1) / steps,
        "memory/high_water_gib": np.full(steps, 12.5),
    }


def write_metrics(path: Path, values: Mapping[str, np.ndarray]) -> None:
    steps = max(map(len, values.values()))
    with path.open("w") as file:
        for step in range(steps):
            line = {"batch": step + 1, "epoch": step // EPOCH}
            line |= {name: float(column[step]) for name, column in values.items() if step < len(column)}
            file.write(json.dumps(line) + "\n")
            if (step + 1) % EPOCH == 0:
                epoch = (step + 1) // EPOCH
                clock = {"time/epoch": float(epoch), "time/batch": step + 1.0}
                file.write(json.dumps({"batch": step + 1, "epoch": epoch} | clock) + "\n")


def write_run(folder: Path, values: Mapping[str, np.ndarray] | None = None, **config) -> Path:
    """Write a run's folder; `values` replace those of `curves`, None of them takes one away."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"run_name": folder.name} | config))
    columns = curves() | dict(values or {})
    write_metrics(folder / "metrics.jsonl", {name: column for name, column in columns.items() if column is not None})
    (folder / "provenance.json").write_text(json.dumps({"device": "4 x NVIDIA H100", "git_commit": "0123abc"}))
    (folder / "data_manifest.json").write_text(json.dumps({"paired": {"samples": 12, "path": "shards/paired"}}))
    return folder


def write_suite(
    folder: Path,
    sources: Mapping[str, str],
    roc: Mapping[str, float],
    *,
    val_roc: Mapping[str, float] | None = None,
    tasks: tuple[str, ...] = ("APTOS",),
    p: float | None = 0.001,
    report: bool = True,
) -> Path:
    """Write a suite of one protocol, a tenth and all of the labels, two seeds; the first encoder is the baseline."""
    planned, rows, differences = [], [], []
    for task in tasks:
        for amount, name in ({"fraction": 0.1, "shots": None}, "10%"), ({"fraction": 1.0, "shots": None}, "100%"):
            for encoder in sources:
                for seed in (0, 1):
                    cell = {"encoder": encoder, "task": task, "protocol": "probe", "amount": amount, "seed": seed}
                    planned.append(cell)
                    if encoder not in roc:
                        continue
                    place = folder / "cells" / task / "probe" / name / encoder / f"seed{seed}"
                    place.mkdir(parents=True, exist_ok=True)
                    score = roc[encoder] - (0.1 if name == "10%" else 0.0)
                    on_val = [0.5, (val_roc or roc)[encoder]] if val_roc != {} else []
                    outcome = {"cell": cell, "metrics": {"roc": score}, "val_roc": on_val}
                    (place / "outcome.json").write_text(json.dumps(outcome))
                if encoder in roc:
                    row = {"Protocol": "probe", "Labels": name, "Task": f"{task} 2019", "Encoder": encoder}
                    score = roc[encoder] - (0.1 if name == "10%" else 0.0)
                    rows.append(row | {"ROC": score, "ROC low": score - 0.02, "ROC high": score + 0.02})
                    first = next(iter(sources))
                    if encoder != first and first in roc and p is not None:
                        change = {"ROC difference": roc[encoder] - roc[first], "ROC p Holm": p}
                        differences.append(row | change)
    suite = {
        "baseline": next(iter(sources)),
        "planned": planned,
        "encoders": {name: {"source": source} for name, source in sources.items()},
        "tasks": {task: {"title": f"{task} 2019"} for task in tasks},
        "protocols": {"probe": {"title": "Linear probe"}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "suite.json").write_text(json.dumps(suite))
    if report:
        (folder / "report").mkdir(exist_ok=True)
        (folder / "report" / "metrics.json").write_text(json.dumps(rows))
        (folder / "report" / "differences.json").write_text(json.dumps(differences))
    return folder
