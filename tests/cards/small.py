"""A finished run and a suite that evaluated it, made of files alone."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
import yaml

from maskedclip_composer.data.records import NAME, SCHEMA
from maskedclip_composer.evaluation.cells import (
    Cell,
    EncoderFacts,
    Outcome,
    Suite,
    TaskFacts,
    save_outcome,
    save_suite,
    save_test_split,
)
from maskedclip_composer.evaluation.encoders.fingerprint import fingerprint
from maskedclip_composer.evaluation.encoders.load import load
from maskedclip_composer.evaluation.kinds import Amount
from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.export.encoder import save_encoder
from maskedclip_composer.models.vit import build_vit

CONFIG: dict[str, Any] = {
    "run_name": "small",
    "output": "runs",
    "seed": 3,
    "data": {
        "paired": {"remote": "shards/paired", "batch_size": 4, "split": None},
        "unpaired": {"remote": "shards/unpaired", "batch_size": 8, "split": None},
        "image_size": 32,
        "prompts": {"pack": "retina-en", "expert": True, "template": None},
    },
    "image_encoder": {"name": "vit_tiny_patch16_224", "patch_size": 8, "depth": 1, "pretrained": False},
    "bridge": {"depth": 2},
    "text_encoder": {"name": "/home/somebody/towers/bert", "pretrained": False},
    "mask_ratio": 0.75,
    "objectives": {"mim": {"weight": 1.0}, "lg_clip": {"weight": 1.0, "patches": "whole"}, "mfd": {"weight": 0.1}},
}
RECORD = {
    "status": "stored",
    "reason": "",
    "row": 0,
    "folder": "",
    "position": 0,
    "dataset": "odir5k",
    "image": "1.jpg",
    "split": "",
    "patient": "p1",
    "eye": "left",
    "visit": "",
    "label": "",
    "label_name": "",
    "texts": ["normal fundus"],
    "text_categories": ["normal fundus"],
    "text_kinds": ["category"],
    "licence": "CC BY 4.0",
    "sha256": "a" * 64,
    "phash": bytes(32),
    "original_width": 512,
    "original_height": 512,
    "width": 32,
    "height": 32,
    "crop_status": "cropped",
    "crop_box": [0, 0, 500, 500],
    "bytes": 900,
    "verbatim": False,
    "sharpness": 0.1,
    "brightness": 0.2,
    "clipped": 0.0,
    "field": 0.9,
}
IDENTICAL = [{"images": ["1.jpg", "2.jpg"], "labels": labels} for labels in (["0"], ["0", "3"])]
ABOUT = {
    "name": "odir5k",
    "terms": "attribution",
    "citation": "A et al., 2019",
    "source": "https://a.example/odir",
    "notes": ["half is missing"],
}


@cache
def encoder() -> bytes:
    """The content of an exported encoder."""
    import tempfile

    torch.manual_seed(0)
    vit = build_vit(CONFIG["image_encoder"]["name"], 32, 8, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.safetensors"
        save_encoder(path, vit, name="vit_tiny_patch16_224", image_size=32, patch_size=8, extra={"trained": "10ba"})
        return path.read_bytes()


def write_manifest(folder: Path, records: list[dict[str, Any]], abouts: list[dict[str, Any]] | None = None) -> None:
    """Write what data_prep leaves beside shards; `abouts` of None leaves out report.json."""
    folder.mkdir(parents=True, exist_ok=True)
    is_build = any("group" in record for record in records)
    columns = [("group", pyarrow.string()), *SCHEMA] if is_build else SCHEMA
    rows = [RECORD | record for record in records]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema(columns)), folder / NAME)
    if abouts is not None:
        report = {
            "sets": {about["name"]: {"about": about, "identical": IDENTICAL} for about in abouts},
            "options": {"size": 32, "crop": True},
        }
        (folder / "report.json").write_text(json.dumps(report))


def write_run(folder: Path, config: dict[str, Any] | None = None, **about: Any) -> Path:
    """Write a finished run: 2 paired photographs of 1 patient and 3 unpaired ones, `about` is said of their set."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | (config or {})))
    index = {"paired": {"samples": 2, "sha256": "c" * 64}, "unpaired": {"samples": 3, "sha256": "d" * 64}}
    prompts = {"pack": "retina-en", "version": "1", "sha256": "e" * 64}
    (folder / "data_manifest.json").write_text(json.dumps(index | {"prompts": prompts}))
    provenance = {"git_commit": "f" * 40, "git_dirty": False, "versions": {"torch": "2.7.0"}, "device": "2 x GPU"}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    (folder / "parameters.json").write_text(json.dumps({"image encoder": 12345, "bridge": 678}))
    steps = [
        {
            "batch": step,
            "loss/train/total": 5.0 - step / 10,
            "time/total": 0.5 * step,
            "throughput/samples_per_sec": 9.0,
        }
        for step in range(1, 11)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps) + '{"batch": 11, "lo')
    (folder / "encoder.safetensors").write_bytes(encoder())
    said = ABOUT | about
    record = {"dataset": said["name"]}
    write_manifest(folder / "data" / "paired", [record, record | {"eye": "right"}], [said])
    write_manifest(
        folder / "data" / "unpaired", [record | {"texts": [], "text_categories": [], "text_kinds": []}] * 3, [said]
    )
    return folder


@cache
def own_fingerprint(path: Path) -> str:
    """Of the encoder of a run."""
    return fingerprint(load(str(path / "encoder.safetensors")))


def write_suite(
    folder: Path, run: Path, *, contaminated: int | None = 0, fingerprint: str | None = None, **task: Any
) -> Path:
    """Write a finished suite: the run's encoder and a random one, on one task, by a linear probe with two seeds."""
    facts = {"title": "Our clinic", "kind": "nominal", "classes": ["0", "1"], "names": ["healthy", "glaucoma"]}
    facts |= {"images": {"train": 8, "val": 4, "test": 24}, "untrained": [], "fingerprint": "9" * 64} | task
    encoders = {
        "untrained": EncoderFacts(
            source="random:x", description="random", fingerprint="8" * 64, contaminated={"clinic": 0}
        ),
        "mine": EncoderFacts(
            source=str(run),
            description=f"{run}/encoder.safetensors",
            fingerprint=fingerprint or own_fingerprint(run),
            contaminated={"clinic": contaminated},
        ),
    }
    cells = [
        Cell(encoder=name, task="clinic", protocol="linear_probe", amount=Amount(fraction=0.5), seed=seed)
        for name in encoders
        for seed in (0, 1)
    ]
    probe = {
        "title": "Linear probe",
        "source": "CLIP",
        "deviations": ["None | at <all>."],
        "linear_probe": {"c_grid": [0.1]},
    }
    suite = Suite(
        complete=True,
        baseline="untrained",
        planned=cells,
        notes=[],
        encoders=encoders,
        tasks={"clinic": TaskFacts(**facts)},
        protocols={"linear_probe": probe},
        provenance={"git_commit": "7" * 40},
    )
    save_suite(folder, suite)
    labels = np.arange(24) % 2
    patients = [f"p{index // 2}" for index in range(24)]
    save_test_split(folder, "clinic", [f"r{n}" for n in range(24)], patients, [[str(label)] for label in labels])
    for cell in cells:
        rng = np.random.default_rng(cell.seed)
        score = rng.random(24) + 0.3 * labels * (cell.encoder == "mine")
        scores = np.stack([1.3 - score, score], axis=1).astype(np.float32)
        scores /= scores.sum(axis=1, keepdims=True)
        metrics = classification_metrics(scores, np.eye(2, dtype=bool)[labels], "nominal")
        outcome = Outcome(
            metrics=metrics, train_images=4, steps=7, val_roc=[0.5], details={}, seconds=0.1, probabilities=scores
        )
        save_outcome(folder, cell, outcome)
    return folder
