"""The debug recipe through train.py: what a run leaves behind, and every recipe of the ablation."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from mlflow import MlflowClient
from safetensors.torch import load_file

import train
from maskedclip_composer.algorithms.ema_teacher import unwrap
from maskedclip_composer.build import DIST_TIMEOUT, build_trainer
from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.export.encoder import load_encoder
from maskedclip_composer.models.block import TokenBlock
from tests.training.conftest import DEBUG

Overrides = Callable[..., list[str]]


def lines(run_folder: Path, key: str) -> list[float]:
    """Values of one metric in the order in which they were logged."""
    records = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [record[key] for record in records if key in record]


def test_a_run_leaves_encoder_checkpoints_metrics_pictures_and_an_mlflow_run(overrides: Overrides, tmp_path: Path):
    assert train.main([DEBUG, *overrides("seed=5")]) == 0
    run = tmp_path / "runs" / "debug"

    assert yaml.safe_load((run / "config.yaml").read_text())["seed"] == 5
    assert (run / "checkpoints" / "latest-rank0.pt").exists()
    assert list((run / "pictures").glob("*.png"))
    encoder = load_encoder(str(run / "encoder.safetensors"))
    assert encoder.vit(torch.zeros(1, 3, 32, 32)).isfinite().all()
    for key in ("total", "mim", "lg_clip", "mfd"):
        values = lines(run, f"loss/train/{key}")
        assert len(values) == 8
        assert all(map(math.isfinite, values))
    total = lines(run, "loss/train/total")[0]
    parts = [lines(run, f"loss/train/{key}")[0] for key in ("mim", "lg_clip", "mfd")]
    assert total == pytest.approx(parts[0] + 0.01 * parts[1] + 0.01 * parts[2], abs=1e-6)
    assert len(lines(run, "diagnostics/gradient_norm")) == 8

    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("maskedclip")
    assert experiment is not None
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.status == "FINISHED"
    assert len(client.get_metric_history(logged.info.run_id, "loss/train/total")) == 8

    card = (run / "model_card.md").read_text()
    assert "| optimiser steps | 8 |" in card
    assert not [name for name in ("parameters.json", "metrics.jsonl", "provenance.json") if f"{name} is not" in card]
    counts = json.loads((run / "parameters.json").read_text())
    assert counts["image encoder"] == sum(map(torch.numel, load_file(run / "encoder.safetensors").values()))
    artifacts = {item.path for item in client.list_artifacts(logged.info.run_id)}
    assert {"model_card.md", "data_card.md"} <= artifacts


def test_the_plain_step_trains_alike(overrides: Overrides, tmp_path: Path):
    """Without any saving, and in chunks whose activations are computed again."""
    found = []
    for run_name, switch in (("fast", "true"), ("plain", "false")):
        keys = ("packed", "masked_only", "distinct_texts", "distinct_logits", "fused_optimizer")
        memory = ["compute.chunk_size=3", "compute.activation={image: full, text: full, decoders: full}"]
        arguments = overrides(f"run_name={run_name}", *(f"compute.{key}={switch}" for key in keys))
        arguments += memory if run_name == "fast" else []
        trainer = build_trainer(load_config(TrainConfig, DEBUG, arguments))
        (optimizer,) = trainer.state.optimizers
        assert {group["fused"] for group in optimizer.param_groups} == {run_name == "fast"}
        trainer.fit()
        texts = trainer.state.batch["paired"]["text_index"]
        assert (texts.tolist() == list(range(len(texts)))) == (run_name == "plain")
        assert ("all_labels" in trainer.state.outputs["lg_clip"]) == (run_name == "fast")
        net = unwrap(trainer.state.model).net
        assert (net.packed, net.chunk_size) == ((True, 3) if run_name == "fast" else (False, None))
        blocks = {module.recomputed for module in net.branch.modules() if isinstance(module, TokenBlock)}
        assert blocks == {run_name == "fast"}
        trainer.close()
        run = tmp_path / "runs" / run_name
        names = ("loss/train/total", "loss/train/lg_clip", "diagnostics/gradient_norm")
        found.append([value for name in names for value in lines(run, name)])
    assert len(found[0]) == 24
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_a_finished_run_is_left_alone(overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = [DEBUG, *overrides("trainer.max_duration=2ba", "checkpoint.interval=2ba", "optimizer.warmup=1ba")]
    assert train.main(arguments) == 0
    weights = tmp_path / "runs" / "debug" / "encoder.safetensors"
    before = load_file(weights)
    weights.unlink()  # as if it had been stopped before the end
    capsys.readouterr()
    assert train.main(arguments) == 0
    assert "is complete" in capsys.readouterr().out
    after = load_file(weights)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert len(lines(tmp_path / "runs" / "debug", "loss/train/total")) == 2


def test_help_and_no_arguments(capsys: pytest.CaptureFixture[str]):
    assert train.main(["--help"]) == 0
    assert "composer train.py FILE.yaml" in capsys.readouterr().out
    assert train.main([]) == 2


def test_a_store_that_fails_one_rank_is_named_before_the_others_give_up_waiting():
    assert DataConfig(unpaired=StreamConfig(remote="x", batch_size=1)).patience < DIST_TIMEOUT
