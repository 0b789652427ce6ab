"""From a sweep file to checked commands."""

import os
from pathlib import Path

import pytest
import yaml

from maskedclip_composer.callbacks.redaction import redact
from maskedclip_composer.config import TrainConfig, to_plain
from maskedclip_composer.config_file import load_config
from maskedclip_composer.errors import UserError
from maskedclip_composer.sweep.__main__ import main
from maskedclip_composer.sweep.config import SweepConfig, SweepRunConfig
from maskedclip_composer.sweep.plan import plan

TABLE2 = "yamls/sweeps/table2.yaml"


def load(*overrides: str) -> SweepConfig:
    return load_config(SweepConfig, TABLE2, list(overrides))


def trained(folder: Path, recipe: str, *overrides: str) -> TrainConfig:
    """Leave what a finished run leaves of its settings."""
    config = load_config(TrainConfig, recipe, [f"run_name={folder.name}", f"output={folder.parent}", *overrides])
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(redact(to_plain(config))))
    (folder / "encoder.safetensors").write_bytes(b"")
    return config


def test_the_papers_table_is_six_runs_and_their_suite():
    jobs = plan(load("ranks=4", "values.paired=s3://bucket/paired"))
    assert [job.name for job in jobs] == [
        "mae",
        "clip",
        "clip_label_guided",
        "mae_clip",
        "bridge",
        "maskedclip",
        "evaluation",
    ]
    assert str(jobs[1]) == (
        "composer -n 4 train.py yamls/pretrain/clip.yaml run_name=clip output=runs/table2 trainer.progress_bar=false "
        "data.paired.remote=s3://bucket/paired"
    )
    assert jobs[1].command[1:5] == ["-m", "composer.cli", "-n", "4"]
    assert "data.unpaired.remote=shards/maskedclip-paper/unpaired" in jobs[5].arguments
    assert "checkpoints.maskedclip=runs/table2/maskedclip" in jobs[6].arguments
    assert jobs[5].log == Path("runs/table2/maskedclip.log")
    assert str(plan(load())[0]).startswith("python train.py ")
    assert [job.name for job in plan(load("evaluate=null"))][-1] == "maskedclip"


def test_all_mistakes_are_said_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    wrong = [
        "runs.clip.overrides=[sed=1]",
        "runs.maskedclip.overrides=[data.unpaired.remote=x,optimizer.lr=-1]",
        "runs.bridge.recipe=yamls/pretrain/brige.yaml",
        "evaluate.overrides=['tasks=[idrd]']",
    ]
    assert main([TABLE2, f"output={tmp_path}", *wrong]) == 2
    message = capsys.readouterr().err
    for part in (
        "runs.clip: yamls/pretrain/clip.yaml: unknown key sed.\n  Did you mean seed?",
        "runs.maskedclip: optimizer.lr=-1.0 is not positive",
        "runs.bridge: yamls/pretrain/brige.yaml does not exist.\n  Did you mean yamls/pretrain/bridge.yaml?",
        "evaluate: evaluate: tasks: yamls/tasks/idrd.yaml does not exist.\n  Did you mean idrid?",
    ):
        assert part in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ranks=0", "ranks=0 is not positive"),
        ("name=a/b", "'a/b' must be a plain name"),
        ("runs.a,b.recipe=x", "'a,b' must be a plain name"),
        ("runs.evaluation.recipe=x", "runs.evaluation has the name of the suite's folder"),
        ("runs.mae.overrides=[run_name=x]", "runs.mae.overrides has run_name=x, which the sweep sets itself"),
        ("shared=[output=x]", "shared has output=x, which the sweep sets itself"),
        ("evaluate.overrides=[output=x]", "evaluate.overrides has output=x"),
        ("shared=['a=${values.nothing}']", "nothing"),
        ("runs.other={}", "recipe is missing"),
        ("runz=1", "Did you mean runs?"),
    ],
)
def test_a_wrong_sweep(override: str, message: str):
    with pytest.raises(UserError) as error:
        load(override)
    assert message in str(error.value)


def test_shared_settings_concern_the_recipes_that_have_their_section():
    shared = ["data.paired.remote=p", "data.unpaired.remote=u", "data.flip=0.1", "objectives.mim.weight=2"]
    jobs = plan(load("evaluate=null", f"shared=[{','.join(shared)}]"))
    assert all({shared[0], shared[2]} <= set(job.arguments) for job in jobs)
    for override in (shared[1], shared[3]):
        assert [job.name for job in jobs if override in job.arguments] == ["mae", "mae_clip", "bridge", "maskedclip"]


def test_a_shared_teacher_concerns_the_recipes_that_have_one():
    jobs = plan(load("shared=[data.paired.remote=x,data.unpaired.remote=y,teacher.momentum=0.9]"))
    having = {job.name for job in jobs if "teacher.momentum=0.9" in job.arguments}
    assert having == {"maskedclip"}


def test_a_name_that_yaml_reads_as_a_value_is_refused():
    with pytest.raises(
        UserError, match=r"010 is read as the value 8 by yaml.\nChoose a name that begins with a letter"
    ):
        plan(load('runs={"010": {recipe: yamls/pretrain/mae.yaml}}', "evaluate=null"))


def test_a_shared_setting_that_concerns_nothing_is_refused():
    with pytest.raises(UserError, match=r"shared: data\.crops\.local_size=16 concerns no recipe"):
        plan(load("shared=[data.crops.local_size=16]"))
    # A recipe that cannot be read says so itself.
    with pytest.raises(UserError, match=r"^runs\.a: nowhere\.yaml does not exist"):
        plan(
            SweepConfig(
                name="a", shared=["data.crops.local_size=16"], runs={"a": SweepRunConfig(recipe="nowhere.yaml")}
            )
        )


def test_the_sweep_of_all_systems_is_sound():
    jobs = plan(load_config(SweepConfig, "yamls/sweeps/debug.yaml", ["evaluate=null"]))
    assert {job.name for job in jobs} == {path.stem for path in Path("yamls/pretrain").glob("*.yaml")}


def test_no_runs(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("name: a\nruns: {}\n")
    with pytest.raises(UserError, match="runs is empty"):
        load_config(SweepConfig, str(tmp_path / "a.yaml"), [])


def test_a_sweep_is_started_where_the_scripts_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sweep = load(f"runs.mae.recipe={Path('yamls/pretrain/mae.yaml').resolve()}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"runs\.mae: train\.py is not in this folder"):
        plan(sweep)


def test_finished_runs_are_known_by_settings_duration_and_order_of_files(tmp_path: Path):
    run, overrides = tmp_path / "table2" / "clip", [f"output={tmp_path}"]

    def is_done(*more: str) -> bool:
        return {job.name: job.is_done for job in plan(load(*overrides, *more))}["clip"]

    assert not is_done()
    trained(run, "yamls/pretrain/clip.yaml", "data.paired.remote=elsewhere")
    assert is_done()  # shards may move
    assert not is_done("runs.clip.overrides=[trainer.max_duration=60000ba]")
    with pytest.raises(UserError, match=r"(?s)runs\.clip: run_name=clip was started with other.*seed: 17 then, 3 now"):
        is_done("runs.clip.overrides=[seed=3]")
    later = (run / "encoder.safetensors").stat().st_mtime + 5
    os.utime(run / "config.yaml", (later, later))  # it was started again, for longer, and has not come to an end
    assert not is_done()
    (run / "encoder.safetensors").unlink()
    assert not is_done()
    assert not is_done("runs.clip.overrides=[seed=3]")  # stopped before its first checkpoint: nothing to be kept


def test_a_dry_run_prints_the_commands_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([TABLE2, f"output={tmp_path}", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("python train.py yamls/pretrain/mae.yaml run_name=mae ")
    assert not list(tmp_path.iterdir())
    trained(tmp_path / "table2" / "clip", "yamls/pretrain/clip.yaml", "data.paired.remote=elsewhere")
    assert main([TABLE2, f"output={tmp_path}", "--dry-run"]) == 0
    assert [line.endswith("# finished") for line in capsys.readouterr().out.splitlines()].count(True) == 1


def test_help_options_and_no_arguments(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    assert "--dry-run" in capsys.readouterr().out
    assert main([]) == 2
    assert main([TABLE2, "--dryrun"]) == 2
    assert "--dryrun is no option" in capsys.readouterr().err
