from pathlib import Path

import pytest

from maskedclip_composer.config_file import load_config
from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.config import EvaluateConfig, load_protocols, load_tasks
from maskedclip_composer.evaluation.encoders.load import LOADERS
from maskedclip_composer.evaluation.plan import seen
from maskedclip_composer.evaluation.protocols.config import FinetuneConfig, ProtocolConfig
from maskedclip_composer.evaluation.tasks import TaskConfig

ROOT = Path(__file__).parents[2]
FILE = str(ROOT / "yamls" / "evaluate.yaml")
PROTOCOLS = sorted((ROOT / "yamls" / "protocols").glob("*.yaml"))
TASKS = sorted((ROOT / "yamls" / "tasks").glob("*.yaml"))


def config(*overrides: str) -> EvaluateConfig:
    return load_config(EvaluateConfig, FILE, ["checkpoints.mine=runs/x", *overrides])


def test_the_command_of_the_readme():
    loaded = config("checkpoints.imagenet=timm:vit_large_patch16_224.augreg_in21k", "tasks=[aptos,idrid]", "seeds=5")
    assert loaded.checkpoints == {"mine": "runs/x", "imagenet": "timm:vit_large_patch16_224.augreg_in21k"}
    assert list(load_tasks(loaded, FILE)) == ["aptos", "idrid"]
    assert list(load_protocols(loaded, FILE)) == ["maskedclip_paper", "linear_probe"]
    assert [amount.name for amount in loaded.amounts] == ["10%", "100%"]
    assert loaded.folder == Path("runs/eval-mine-imagenet")


def test_amounts_come_in_order_whatever_is_written():
    assert [amount.name for amount in config("fractions=[1.0,0.25]", "shots=[10,1]").amounts] == [
        "25%", "100%", "1-shot", "10-shot"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fractoins=[0.1]", "Did you mean fractions"),
        ("fractions=[0]", "must lie above 0"),
        ("fractions=[10]", "ten per cent is 0.1"),
        ("fractions=[0.1,0.1]", "names something twice"),
        ("shots=[0]", "must be at least 1"),
        ("fractions=[]", "fractions and shots are both empty"),
        ("seeds=0", "seeds=0 must be at least 1"),
        ("tasks=[]", "tasks is empty"),
        ("protocols=[]", "protocols is empty"),
        ("baseline=other", "is none of checkpoints: mine"),
        ("run_name=a/b", "must be a plain name"),
        ("memory=-1", "must be at least 0"),
        ("image_size=0", "must be at least 1"),
        ("workers=-1", "must be at least 0"),
    ],
)
def test_every_mistake_is_named(override, message):
    with pytest.raises(UserError, match=message):
        _ = config(override).amounts


def test_a_name_that_is_no_folder_is_refused():
    with pytest.raises(UserError, match="must be a plain name"):
        load_config(EvaluateConfig, FILE, ["checkpoints={'a/b': c}"])
    with pytest.raises(UserError, match="checkpoints"):
        load_config(EvaluateConfig, FILE, [])


def test_unknown_tasks_and_protocols_name_the_nearest():
    with pytest.raises(UserError, match="Did you mean idrid"):
        load_tasks(config("tasks=[idird]"), FILE)
    with pytest.raises(UserError, match="Did you mean linear_probe"):
        load_protocols(config("protocols=[linaer_probe]"), FILE)
    with pytest.raises(UserError, match="There are: aptos"):
        load_tasks(config("tasks=[zzz]"), FILE)


def test_a_folder_or_a_yaml_of_the_users_own_is_a_task(tmp_path):
    (tmp_path / "clinic").mkdir()
    (tmp_path / "own.yaml").write_text("title: Own\ndata: /there\nkind: multilabel\n")
    tasks = load_tasks(config(f"tasks=[{tmp_path / 'clinic'},{tmp_path / 'own.yaml'},s3://bucket/far]"), FILE)
    assert tasks["clinic"] == TaskConfig(title="clinic", data=str(tmp_path / "clinic"))
    assert tasks["own"].kind == "multilabel"
    assert tasks["far"].data == "s3://bucket/far"
    (tmp_path / "other" / "clinic").mkdir(parents=True)
    with pytest.raises(UserError, match="two tasks or protocols are called clinic"):
        load_tasks(config(f"tasks=[{tmp_path / 'clinic'},{tmp_path / 'other' / 'clinic'}]"), FILE)


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_every_protocol_names_its_source_and_deviations(path):
    protocol = load_config(ProtocolConfig, str(path), [])
    assert protocol.source
    assert protocol.deviations
    assert path.read_text().startswith("#")


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_every_task_is_sound(path):
    task = load_config(TaskConfig, str(path), [])
    assert task.source
    assert set(task.seen_by) <= set(LOADERS)
    if task.prompts is not None:
        words = read_pack("retina-en").class_prompts(task.prompts.dataset, task.prompts.target)
        assert set(task.classes or words) == set(words)


def test_what_flair_was_trained_on_is_said_for_flair_alone():
    """Five of the paper's seven sets are in FLAIR's corpus."""
    both = config(
        "checkpoints.flair=flair:weights.pth", "tasks=[aptos,idrid,messidor2,glaucoma_fundus,origa,jsiec,retina]"
    )
    notes = seen(both, load_tasks(both, FILE))
    assert len(notes) == 5
    assert all("pre-training of flair holds" in note for note in notes)
    assert any("APTOS2019" in note for note in notes)
    assert seen(config(), load_tasks(config(), FILE)) == []


def test_the_papers_tasks_are_the_default():
    assert list(load_tasks(config(), FILE)) == [
        "aptos", "idrid", "messidor2", "glaucoma_fundus", "origa", "jsiec", "retina"
    ]  # fmt: skip
    assert {"papila", "odir", "idrid_dme"} <= {path.stem for path in TASKS}


def test_the_papers_and_retfounds_settings():
    """`systems.md` of the project has the sources; what is asserted here is what they state."""
    protocols = {path.stem: load_config(ProtocolConfig, str(path), []).finetune for path in PROTOCOLS}
    paper, old, new = (protocols[name] for name in ("maskedclip_paper", "retfound_2024", "retfound_2025"))
    assert paper is not None
    assert old is not None
    assert new is not None
    assert (paper.batch_size, paper.epochs, paper.lr, paper.warmup_epochs) == (16, 50, 5e-4, 10)
    assert (paper.layer_decay, paper.drop_path, paper.label_smoothing) == (0.65, 0.2, 0.1)
    assert old.lr == pytest.approx(5e-3 * 16 / 256)
    assert (new.batch_size, new.lr) == (24, pytest.approx(5e-3 * 24 / 256))
    assert (new.label_smoothing, new.select_by) == (0.0, "mean_of_f1_roc_kappa")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: a\nsource: b\n", "exactly one of"),
        ("title: a\nsource: b\nknn: {}\nzero_shot: {}\n", "exactly one of"),
        ("title: a\nsource: b\nknn:\n", "has no value"),
        ("title: a\nsource: b\nknn: {k_grid: [0]}\n", "all from 1"),
        ("title: a\nsource: b\nknn: {temprature: 1}\n", "Did you mean temperature"),
        ("title: a\nsource: b\nlinear_probe: {c_grid: []}\n", "at least one number"),
        ("title: a\nsource: b\nlinear_probe: {max_iterations: 0}\n", "must be above 0"),
        ("source: b\nknn: {}\n", "title"),
    ],
)
def test_a_protocols_mistakes_are_named(tmp_path, text, message):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_protocols(config(f"protocols=[{tmp_path / 'p.yaml'}]"), FILE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"warmup_epochs": 50}, "warmup_epochs=50"),
        ({"min_lr": 1.0}, "min_lr"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"drop_path": -0.1}, "drop_path"),
        ({"random_erasing": 1.5}, "random_erasing"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"min_crop": 1.1}, "min_crop"),
    ],
)
def test_fine_tunings_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=message):
        FinetuneConfig(**options)


def test_a_tasks_mistakes_are_named():
    with pytest.raises(UserError, match="names a class twice"):
        TaskConfig(title="t", data="d", classes=["a", "a"])
    with pytest.raises(UserError, match="'c', which is none of"):
        TaskConfig(title="t", data="d", classes=["a", "b"], names={"c": "d"})


def test_a_folder_of_the_same_name_does_not_take_the_place_of_a_task(tmp_path, monkeypatch):
    (tmp_path / "idrid").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_tasks(config("tasks=[idrid]"), FILE)["idrid"].kind == "ordinal"
    assert load_tasks(config("tasks=[./idrid]"), FILE)["idrid"].kind == "nominal"


def test_two_protocols_of_one_title_are_refused(tmp_path):
    copy = tmp_path / "mine.yaml"
    copy.write_text((ROOT / "yamls" / "protocols" / "knn.yaml").read_text())
    with pytest.raises(UserError, match="knn and mine have the same title"):
        load_protocols(config(f"protocols=[knn,{copy}]"), FILE)


def test_what_only_pre_training_draws_is_no_key_here():
    with pytest.raises(UserError, match="unknown key"):
        config("tracking.picture_interval=1ep")
