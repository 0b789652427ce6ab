"""Every system of `yamls/pretrain`, at the sizes of `yamls/sweeps/debug.yaml`, on made-up and on real photographs."""

import math
import os
from pathlib import Path

import pytest
import torch
from composer.core import Callback, State
from composer.loggers import Logger

import evaluate
from data_prep.__main__ import main as data_prep
from maskedclip_composer.build import build_trainer
from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.export.checkpoint import read_checkpoint
from maskedclip_composer.sweep.config import SweepConfig
from maskedclip_composer.sweep.plan import plan
from tests.training.test_resume import equal
from tests.training.test_train import lines

SWEEP = "yamls/sweeps/debug.yaml"
SYSTEMS = list(load_config(SweepConfig, SWEEP, []).runs)
STEPS = 24


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make demo` prepares, smaller."""
    root = tmp_path_factory.mktemp("synthetic")
    pictures = root / "photographs"
    counts = ["--paired", "32", "--unpaired", "32", "--downstream", "40", "--size", "64"]
    assert data_prep(["synthetic", "--out", str(pictures), *counts, "--workers", "1"]) == 0
    for name in ("paired", "reports", "unpaired", "downstream"):
        table = ["--csv", str(pictures / f"{name}.csv"), "--images", str(pictures), "--separator", "|"]
        assert data_prep(["manifest", *table, "--size", "64", "--out", str(root / name), "--workers", "1"]) == 0
    shards = [str(root / name / "train") for name in ("paired", "reports")]
    small = ["--width", "32", "--vocab", "800"]
    assert data_prep(["text-tower", "--shards", *shards, "--out", str(root / "text"), *small]) == 0
    return root


@pytest.fixture(scope="session")
def odir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty patients of ODIR-5K with their keywords, other photographs without text; reports join the keywords."""
    if "FUNDUS_DATA" not in os.environ:
        pytest.skip("FUNDUS_DATA names no folder of real photographs")
    source, root = Path(os.environ["FUNDUS_DATA"]), tmp_path_factory.mktemp("odir")
    patients = root / "patients.txt"
    names = sorted({path.name.split("_")[0] for path in (source / "paired_odir").rglob("*_left.jpg")}, key=int)
    patients.write_text("\n".join(names[:40]))
    odir5k = ["--root", str(source / "paired_odir"), "--kind", "paired", "--patients", str(patients)]
    assert data_prep(["prepare", "odir5k", *odir5k, "--size", "64", "--out", str(root / "paired")]) == 0
    images = sorted((source / "unpaired").rglob("*.jpg"))[:32]
    table = root / "unpaired.csv"
    table.write_text("image\n" + "\n".join(str(path.relative_to(source / "unpaired")) for path in images))
    bare = ["--csv", str(table), "--images", str(source / "unpaired"), "--size", "64"]
    assert data_prep(["manifest", *bare, "--out", str(root / "unpaired")]) == 0
    shards = [str(path.parent) for path in (root / "paired").rglob("index.json") if list(path.parent.glob("*.mds*"))]
    small = ["--width", "32", "--vocab", "800"]
    assert data_prep(["text-tower", "--shards", *shards, "--out", str(root / "text"), *small]) == 0
    (root / "reports").symlink_to(root / "paired")
    return root


def config_of(system: str, data: Path, output: Path, *overrides: str) -> TrainConfig:
    """Return a system's config as the sweep would run it."""
    sweep = load_config(SweepConfig, SWEEP, [f"values.data={data}", f"output={output}", "evaluate=null"])
    (job,) = [job for job in plan(sweep) if job.name == system]
    path, *given = job.arguments
    splits = [item for item in given if item.endswith(".split=train") and not (data / "paired" / "train").exists()]
    given = [item for item in given if item not in splits]
    return load_config(TrainConfig, path, [*given, *overrides])


def train(config: TrainConfig, *callbacks: Callback) -> Path:
    trainer = build_trainer(config)
    trainer.state.callbacks.extend(callbacks)
    try:
        trainer.fit()
    finally:
        trainer.close()
    return config.run_folder


def assert_learns(config: TrainConfig) -> None:
    run = train(config)
    totals = lines(run, "loss/train/total")
    assert len(totals) == STEPS
    assert all(map(math.isfinite, totals))
    sixth = STEPS // 6
    assert sum(totals[-sixth:]) < sum(totals[:sixth])
    for name in config.objectives.present():
        assert len(lines(run, f"loss/train/{name}")) == STEPS
    assert (run / "encoder.safetensors").is_file()


LEARNING = (
    f"trainer.max_duration={STEPS}ba",
    "optimizer.lr=1e-3",
    f"checkpoint.interval={STEPS}ba",
    f"tracking.picture_interval={STEPS}ba",
    "tracking.mlflow=false",
)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("systems")


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_learns_from_made_up_photographs(system: str, synthetic: Path, output: Path):
    assert_learns(config_of(system, synthetic, output, *LEARNING))


# The rest of the ablation has no part that these have not; benchmarks/real_systems.yaml has all of them.
@pytest.mark.real_data
@pytest.mark.parametrize("system", ["clip_label_guided", "maskedclip", "flip", "dinov2", "mmclip", "mlip"])
def test_a_system_learns_from_real_photographs(system: str, odir: Path, tmp_path: Path):
    more = ["data.join_texts=true"] if system in ("mmclip", "mlip") else []
    assert_learns(config_of(system, odir, tmp_path, *LEARNING, *more))


def test_every_systems_encoder_has_a_row_in_the_results(synthetic: Path, output: Path):
    """Runs after the systems have been trained: their exports are what is evaluated."""
    encoders = [f"checkpoints.{system}={output / 'debug' / system}" for system in SYSTEMS]
    arguments = [f"tasks=[{synthetic / 'downstream'}]", "protocols=[knn]", "fractions=[1.0]", "seeds=1", "workers=0"]
    where = [f"output={output}", "run_name=suite", "tracking.mlflow=false"]
    assert evaluate.main(["yamls/evaluate.yaml", *encoders, *arguments, *where]) == 0
    table = (output / "suite" / "report" / "table1.md").read_text().replace("\\", "")
    assert all(f"| {system} " in table for system in SYSTEMS)
    cards = {system: (output / "debug" / system / "model_card.md").read_text() for system in SYSTEMS}
    assert [system for system, card in cards.items() if f"is called {system} there" not in card] == []


class Stop(Callback):
    """Ends a run as an error would, without a checkpoint."""

    def __init__(self, step: int):
        self.step = step

    def batch_end(self, state: State, logger: Logger) -> None:
        if state.timestamp.batch.value == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("system", ["flip", "dinov2", "mmclip", "mlip"])
def test_a_system_resumes_exactly(system: str, synthetic: Path, tmp_path: Path):
    steps = ("trainer.max_duration=6ba", "checkpoint.interval=2ba", "tracking.picture_interval=6ba")
    run, interrupted, resumed = (config_of(system, synthetic, tmp_path / name, *steps) for name in ("a", "b", "b"))
    whole = train(run)
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, Stop(5))
    assert not (interrupted.run_folder / "encoder.safetensors").exists()
    broken = train(resumed)
    states = [read_checkpoint(run / "checkpoints" / "latest-rank0.pt")["state"] for run in (whole, broken)]
    for part in ("model", "optimizers"):
        assert equal(states[0][part], states[1][part]), part
    assert torch.equal(*(torch.tensor(lines(run, "loss/train/total")[-2:]) for run in (whole, broken)))
