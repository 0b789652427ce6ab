import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

import evaluate
from maskedclip_composer.evaluation import suite as module
from maskedclip_composer.evaluation.cells import load_outcomes, load_suite, load_test_split, picture_folder
from maskedclip_composer.export.encoder import load_encoder, save_encoder
from maskedclip_composer.report import write
from tests.cards.small import write_run, write_suite
from tests.evaluation.conftest import LABELS, SIZES, TINY, write_mds

ROOT = Path(__file__).parents[2]
FAST = "finetune: {epochs: 2, warmup_epochs: 1, batch_size: 12}\n"


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run") / "encoder.safetensors"
    save_encoder(path, load_encoder(TINY, image_size=32).vit, name=TINY[7:], image_size=32, patch_size=16)
    return path


@pytest.fixture
def options(mds, encoder_file, tmp_path):
    """A suite of two encoders, one task and three protocols, without MLflow."""
    (tmp_path / "fast.yaml").write_text(f"title: Fast\nsource: tests\n{FAST}")

    def build(*more: str) -> list[str]:
        return [
            str(ROOT / "yamls" / "evaluate.yaml"),
            f"checkpoints.mine={encoder_file}",
            f"checkpoints.random=random:{encoder_file}",
            f"tasks=[{mds}]",
            f"protocols=[linear_probe,knn,{tmp_path / 'fast.yaml'}]",
            "fractions=[0.5,1.0]",
            "seeds=2",
            "batch_size=16",
            "workers=0",
            f"output={tmp_path / 'runs'}",
            "run_name=s",
            "tracking.mlflow=false",
            *more,
        ]

    return build


@pytest.fixture(autouse=True)
def quick_report(request, monkeypatch):
    """Spare the tests the report, which has tests of its own, but for the one that looks at it."""

    def stub(folder: Path, **options) -> Path:
        return folder / "report" / "report.html"

    if "report" not in request.node.name:
        monkeypatch.setattr(write, "write_report", stub)


def run(capsys, arguments: list[str]) -> tuple[int, str, str]:
    status = evaluate.main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_every_cell_is_scored_as_scikit_learn_does_and_the_report_is_made(options, mds, tmp_path, capsys):
    status, out, _ = run(capsys, options())
    assert status == 0
    folder = tmp_path / "runs" / "s"
    assert str(folder / "report" / "report.html") in out
    assert (folder / "report" / "report.html").is_file()
    suite, cells = load_suite(folder), dict(load_outcomes(folder))
    assert suite.complete
    assert set(cells) == set(suite.planned)
    # Two encoders; with all labels probe and neighbours are the same for every seed.
    assert len(cells) == 2 * (3 * 2 + 2 + 1 + 1)
    task = mds.name
    table, one_hot = load_test_split(folder, task, suite.tasks[task].classes)
    assert len(table) == SIZES["test"]
    assert table["record"].is_unique
    for cell, outcome in cells.items():
        assert outcome.train_images == SIZES["train"] * (cell.amount.fraction or 0)
        assert outcome.metrics["roc"] == pytest.approx(roc_auc_score(one_hot, outcome.probabilities, average="macro"))
        prc = average_precision_score(one_hot, outcome.probabilities, average="macro")
        assert outcome.metrics["prc"] == pytest.approx(prc)
    results = pd.read_csv(folder / "results.csv")
    assert len(results) == len(cells)
    assert set(results["amount"]) == {"50%", "100%"}
    for cell in filter(suite.is_pictured, cells):
        drawn = {file.stem for file in (folder / picture_folder(cell)).iterdir()}
        mistakes = {"gallery"} if cells[cell].metrics["accuracy"] < 1 else set()
        assert drawn == {"confusion", "roc", "pr", "reliability"} | mistakes
    assert sorted(file.name for file in folder.iterdir()) == [
        ".lock", "cells", "config.yaml", "features", "pictures", "report", "results.csv", "suite.json", "tasks"
    ]  # fmt: skip


def test_several_labels_from_yaml_to_report(options, multilabel_mds, tmp_path, capsys):
    task = tmp_path / "several.yaml"
    task.write_text(f"title: Several\ndata: {multilabel_mds}\nkind: multilabel\nclasses: [N, D, G]\nnames: {{D: DR}}\n")
    assert run(capsys, options(f"tasks=[{task}]", "shots=[1]", "fractions=[]"))[0] == 0
    folder = tmp_path / "runs" / "s"
    suite = load_suite(folder)
    assert suite.tasks["several"].names == ["N", "DR", "G"]
    outcomes = list(load_outcomes(folder))
    assert {cell.amount.name for cell, _ in outcomes} == {"1-shot"}
    assert all("exact_match" in outcome.metrics for _, outcome in outcomes)


def results(tmp_path: Path) -> pd.DataFrame:
    return pd.read_csv(tmp_path / "runs" / "s" / "results.csv")


def test_a_killed_suite_resumes_and_its_table_is_identical(options, tmp_path, capsys, monkeypatch):
    run(capsys, options())
    whole = results(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    launcher = [sys.executable, str(ROOT / "evaluate.py"), *options()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    cells = tmp_path / "runs" / "s" / "cells"
    with subprocess.Popen(launcher, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        while len(list(cells.rglob("outcome.json"))) < 7:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    done = {path: path.stat().st_mtime_ns for path in cells.rglob("outcome.json")}
    assert 7 <= len(done) < len(whole)
    assert not load_suite(tmp_path / "runs" / "s").complete
    assert run(capsys, options())[0] == 0
    pd.testing.assert_frame_equal(results(tmp_path), whole)
    assert all(path.stat().st_mtime_ns == before for path, before in done.items())  # not done again


def test_a_suite_can_be_extended_and_what_is_done_is_kept(options, encoder_file, tmp_path, capsys, monkeypatch):
    run(capsys, options("fractions=[1.0]", "protocols=[linear_probe]"))
    first = results(tmp_path)
    calls = []
    once = module.run_cell
    monkeypatch.setattr(module, "run_cell", lambda cell, *rest: calls.append(cell) or once(cell, *rest))
    more = options("protocols=[linear_probe,knn]", f"checkpoints.third={encoder_file}", "fractions=[0.5,1.0]")
    assert run(capsys, more)[0] == 0
    assert len(calls) == 3 * 2 * 3 - len(first)
    both = results(tmp_path)
    kept = both.merge(first, on=["task", "protocol", "amount", "encoder", "seed", "roc", "prc"])
    assert len(kept) == len(first)
    suite = load_suite(tmp_path / "runs" / "s")
    assert set(suite.encoders) == {"mine", "random", "third"}
    # A suite that asks for less leaves the rest of the folder's record alone.
    assert run(capsys, options("fractions=[1.0]", "protocols=[knn]"))[0] == 0
    assert set(load_suite(tmp_path / "runs" / "s").planned) == set(suite.planned)
    assert load_suite(tmp_path / "runs" / "s").complete


def test_cells_of_other_weights_labels_or_settings_are_not_mixed(options, encoder_file, mds, tmp_path, capsys):
    assert run(capsys, options("protocols=[knn]"))[0] == 0
    status, _, err = run(capsys, options("protocols=[knn]", "checkpoints.mine=random:vit_tiny_patch16_224"))
    assert status == 2
    assert "the weights of checkpoints.mine" in err
    (tmp_path / "knn.yaml").write_text("title: k\nsource: s\nknn: {k_grid: [3]}\n")
    status, _, err = run(capsys, options(f"protocols=[{tmp_path / 'knn.yaml'}]"))
    assert (status, "the settings of protocol knn" in err) == (2, True)
    other = tmp_path / mds.name
    shutil.copytree(mds, other)
    shutil.rmtree(other / "test")
    rng = np.random.default_rng(5)
    write_mds(other / "test", list(LABELS), [rng.bytes(30) for _ in LABELS])
    status, _, err = run(capsys, options("protocols=[knn]", f"tasks=[{other}]"))
    assert (status, f"labels of task {mds.name}" in err) == (2, True)


def test_another_order_of_classes_or_another_image_size_is_another_suite(options, mds, tmp_path, capsys):
    """Stored probabilities would be read against other columns, stored features be of other images."""
    task = tmp_path / "own.yaml"
    text = f"title: Own\ndata: {mds}\nkind: ordinal\nclasses: "
    task.write_text(f'{text}["1", "2", "10"]\n')
    assert run(capsys, options("protocols=[knn]", f"tasks=[{task}]"))[0] == 0
    task.write_text(f'{text}["10", "2", "1"]\n')
    status, _, err = run(capsys, options("protocols=[knn]", f"tasks=[{task}]"))
    assert (status, "labels of task own" in err) == (2, True)
    task.write_text(f'{text}["1", "2", "10"]\n')
    status, _, err = run(capsys, options("protocols=[knn]", f"tasks=[{task}]", "image_size=48"))
    assert (status, "the weights of checkpoints.mine" in err) == (2, True)


def test_what_is_known_stays_known_when_a_suite_is_extended(options, mds, multilabel_mds, tmp_path, capsys):
    several = tmp_path / "several.yaml"
    several.write_text(f"title: Several\ndata: {multilabel_mds}\nkind: multilabel\n")
    assert run(capsys, options("protocols=[knn]", "baseline=random"))[0] == 0
    assert run(capsys, options("protocols=[knn]", f"tasks=[{several}]"))[0] == 0
    suite = load_suite(tmp_path / "runs" / "s")
    assert suite.encoders["random"].contaminated == {mds.name: 0, "several": 0}
    assert suite.encoders["mine"].contaminated == {mds.name: None, "several": None}
    assert suite.baseline == "random"
    assert run(capsys, options("protocols=[knn]", "baseline=mine"))[0] == 0
    assert load_suite(tmp_path / "runs" / "s").baseline == "mine"


def test_a_cell_that_diverges_is_named(options, tmp_path, capsys):
    (tmp_path / "fast.yaml").write_text("title: F\nsource: s\nfinetune: {epochs: 2, warmup_epochs: 0, lr: 1.0e+30}\n")
    status, _, err = run(capsys, options(f"protocols=[{tmp_path / 'fast.yaml'}]", "fractions=[1.0]"))
    assert status == 2
    assert "fast 100% seed0: " in err
    assert "protocol file of another name" in err


@pytest.mark.slow
def test_two_ranks_score_every_image_once_and_equal_one(options, tmp_path, capsys):
    # With next to no learning rate the weights stay, so that both must give the same scores.
    (tmp_path / "fast.yaml").write_text(
        "title: Fast\nsource: tests\nfinetune: {epochs: 1, warmup_epochs: 0, batch_size: 12, lr: 1.0e-12, min_lr: 0}\n"
    )
    assert run(capsys, options("seeds=1"))[0] == 0
    one = results(tmp_path)
    launcher = Path(sys.executable).with_name("composer")
    done = subprocess.run(
        [str(launcher), "-n", "2", str(ROOT / "evaluate.py"), *options("seeds=1", "run_name=two")],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report.html") == 1
    two = pd.read_csv(tmp_path / "runs" / "two" / "results.csv")
    pd.testing.assert_frame_equal(two, one, rtol=1e-4, atol=1e-4)
    for _, outcome in load_outcomes(tmp_path / "runs" / "two"):
        assert len(outcome.probabilities) == SIZES["test"]  # 21, which two ranks pad to 22


def test_ranks_wait_for_one_that_downloads(options, capsys, monkeypatch):
    from maskedclip_composer.errors import UserError

    def initialise(device, timeout=300.0):
        raise UserError(f"timeout {timeout:.0f}")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(module.dist, "initialize_dist", initialise)
    assert "timeout 3600" in run(capsys, options())[2]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("checkpoints.mine=absent", "absent"),
        ("tasks=[absent]", "tasks/absent.yaml does not exist"),
        ("tasks=[idrid]", "shards/idrid has no folder 'train'"),
        ("fractoins=[0.1]", "Did you mean fractions?"),
        ("protocols=[zero_shot]", "nothing can be evaluated"),
    ],
)
def test_mistakes_are_one_message_and_status_two(options, capsys, override, message):
    status, out, err = run(capsys, options(override))
    assert status == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_damaged_photograph_stops_before_training(options, mds, tmp_path, capsys):
    shutil.copytree(mds, tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "test")
    write_mds(tmp_path / "set" / "test", list(LABELS), [b"x", b"y", b"z"])
    status, _, err = run(capsys, options(f"tasks=[{tmp_path / 'set'}]"))
    assert status == 2
    assert "3 photographs cannot be decoded" in err
    assert not list((tmp_path / "runs" / "s").rglob("outcome.json"))


def test_credentials_stay_out_of_the_folder(options, tmp_path, capsys):
    assert run(capsys, options("protocols=[knn]", "data_root=s3://me:hidden@host/b"))[0] == 0
    texts = [file.read_bytes() for file in (tmp_path / "runs" / "s").rglob("*") if file.is_file()]
    assert not any(b"hidden" in text for text in texts)


def test_outcomes_are_json_without_nan(options, mds, tmp_path, capsys):
    shutil.copytree(mds, tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "test")
    shutil.copytree(mds / "val", tmp_path / "set" / "test")
    write_mds_without(tmp_path / "set" / "test")
    assert run(capsys, options("protocols=[knn]", f"tasks=[{tmp_path / 'set'}]"))[0] == 0
    for path in (tmp_path / "runs" / "s").rglob("outcome.json"):
        content = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
        assert content["metrics"]["roc_per_class"].count(None) == 1
        assert content["metrics"]["skipped"] == [2]


def write_mds_without(folder: Path) -> None:
    """Replace a test split by one that lacks the last class."""
    from tests.evaluation.conftest import photograph

    shutil.rmtree(folder)
    rng = np.random.default_rng(3)
    labels = ["1", "2", "1", "2", "2"]
    write_mds(folder, labels, [photograph(label, rng) for label in labels])


@pytest.mark.parametrize("wanted", [True, False])
def test_runs_are_updated_unless_that_is_switched_off(options, tmp_path, capsys, monkeypatch, wanted):
    pretrained = write_run(tmp_path / "pretrained")
    suite = write_suite(tmp_path / "suite", pretrained)
    monkeypatch.setattr(module, "evaluate", lambda *arguments: suite)

    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in pretrained.rglob("*") if path.is_file()}

    before = content()
    status, out, _ = run(capsys, options(*([] if wanted else ["update_runs=false"])))
    assert status == 0
    assert "report.html" in out
    changed = {Path(path).name for path, text in content().items() if before.get(path) != text}
    assert changed == ({"model_card.md", "data_card.md", "dashboard.html", "suites.json"} if wanted else set())


def test_help_needs_no_config(capsys):
    assert evaluate.main(["--help"]) == 0
    assert "checkpoints" in capsys.readouterr().out
    assert evaluate.main([]) == 2
