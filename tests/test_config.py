"""Every message that a yaml can end in, and that shipped yamls are sound."""

import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from maskedclip_composer.config import TrainConfig, to_plain
from maskedclip_composer.config_file import load_config
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.protocols.config import ProtocolConfig
from maskedclip_composer.models.teacher import TeacherConfig

PRETRAIN = "yamls/pretrain.yaml"
DATA = ["data.paired.remote=paired", "data.unpaired.remote=unpaired"]


def load(*overrides: str, path: str = PRETRAIN) -> TrainConfig:
    return load_config(TrainConfig, path, [*DATA, *overrides])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sed=3"], "unknown key sed.\nDid you mean seed?"),
        (["data.paired.bacth_size=3"], "unknown key data.paired.bacth_size.\nDid you mean batch_size?"),
        (["objectives.mim.nothing_like_it=3"], "Known keys there: weight, dim, depth, num_heads, target_norm"),
        (["seed=abc"], "seed: Value 'abc'"),
        (["optimizer=3"], "Merge error"),
        (["seed"], "Override 'seed' is not of the form key=value"),
        (["objectives.mim.target_norm=pach"], "expected one of ['none', 'patch']"),
        (
            ["image_encoder.attention=flash"],
            "expected one of ['auto', 'xformers', 'xformers_varlen', 'sdpa',",
        ),
        (["seed=-1"], "seed=-1 is negative"),
        (["trainer.load_path=x.pt"], "Use checkpoint.resume"),
        (["trainer.profiler=x"], "trainer.profiler is not available"),
        (["trainer.precision=fp8"], "trainer.precision=fp8 is not available"),
        (["trainer.device=tpu"], "trainer.device=tpu is not available"),
        (["trainer.max_duration=long"], "trainer.max_duration=long is no time"),
        (["optimizer.warmup=40"], "optimizer.warmup=40 is no time"),
        (["checkpoint.interval=0ep"], "checkpoint.interval=0ep is no time"),
        (["optimizer.lr=nan"], "optimizer.lr=nan is not positive"),
        (["optimizer.weight_decay=-1"], "optimizer.weight_decay=-1.0 is negative"),
        (["optimizer.final_lr_factor=2"], "optimizer.final_lr_factor=2.0 is outside"),
        (["optimizer.betas=[0.9,1.5]"], "must be two numbers in [0, 1)"),
        (["objectives.mim.depth=0"], "objectives.mim.depth=0 is not positive"),
        (["objectives.mim.num_heads=0"], "must be divisible by num_heads=0"),
        (["objectives.mfd.num_heads=0"], "objectives.mfd.num_heads=0 is not positive"),
        (["objectives.mfd.weight=nan"], "objectives.mfd.weight=nan is not positive"),
        (["objectives.lg_clip.temperature=0"], "objectives.lg_clip.temperature=0.0 is outside"),
        (["objectives.lg_clip.embed_dim=0"], "objectives.lg_clip.embed_dim=0 is not positive"),
        (["objectives.lg_clip.max_logit_scale=1"], "objectives.lg_clip.max_logit_scale=1.0 is not above 1"),
        (["bridge.num_heads=0"], "bridge.num_heads=0 is not positive"),
        (["tracking.tags=[1]"], "yamls/pretrain.yaml: "),
        (["objectives.mim="], "is not of the form key=value"),
        (
            ["objectives={mim: {}, lg_clip: null, mfd: null}"],
            "bridge.depth=4, but no objective trains the bridge (objectives: mim)",
        ),
        (["image_encoder.depth=0"], "image_encoder.depth=0 is not positive"),
        (["image_encoder={depth: 3, pretrained: true}"], "image_encoder.depth=3 does not fit"),
        (["mask_ratio=1"], "mask_ratio=1.0 is outside (0, 1)"),
        (["objectives.mim=null", "objectives.mfd=null", "data.unpaired=null", "mask_ratio=0.5"], "masks at random (ob"),
        (["objectives={mim: {}, lg_clip: null, mfd: null, att_mim: {}}"], "objectives.att_mim needs a space in which"),
        (
            [
                "objectives={mim: {}, lg_clip: null, mfd: null, patch_sentence: {mode: align}}",
                "data.sentences={max_sentences: 4}",
            ],
            "objectives.patch_sentence needs a space in which images and texts are aligned",
        ),
        (["objectives.ent_mlm={}"], "objectives.ent_mlm needs entity spans of the texts, but data.entities"),
        (["data.entities={lexicon: chest}"], "data.entities is given, but no objective reads entity spans"),
        (["data.entities={model: other}"], "data.entities.model = other: is not read with data.entities.tagger"),
        (["data.crops={}"], "data.crops is given, but no objective reads several crops"),
        (
            ["objectives={att_mim: {score: responsive_cosine, attention_temperature: 0.2}}"],
            "attention_temperature=0.2 is not read with score=responsive_cosine",
        ),
        (
            [
                "data.paired=null",
                "data.unpaired.batch_size=1",
                "data.crops={}",
                "objectives={mim: null, lg_clip: null, mfd: null, dinov2: {}}",
            ],
            "objectives.dinov2.koleo_weight: one image a step",
        ),
        (["run_name=a/b"], "run_name='a/b' must be a plain name"),
        (["objectives.lg_clip=null"], "objectives.mfd is on without an objective that trains the bridge"),
        (["objectives={mim: null, lg_clip: null, mfd: null}"], "objectives is empty"),
        (["data.paired=null"], "objectives.lg_clip needs images with texts"),
        (["objectives.mim=null", "objectives.mfd=null"], "no objective uses images without texts"),
        (["objectives.lg_clip.weight=0"], "objectives.lg_clip.weight=0.0 is not positive"),
        (["objectives.lg_clip.temperature=2"], "objectives.lg_clip.temperature=2.0"),
        (["teacher.momentum=1"], "teacher.momentum=1.0"),
        (["teacher={final_momentum: 0.5}"], "teacher.final_momentum=0.5 is outside [0.999, 1]"),
        (["teacher={momentum: 0.9}", "objectives.mfd=null"], "teacher is given, but no objective has one"),
        (["objectives.mim.dim=383"], "objectives.mim.dim=383 must be divisible by num_heads=6"),
        (["bridge.depth=-1"], "bridge.depth=-1 is negative"),
        (["text_encoder.layers=[1]"], "leaves out the last layer"),
        (["text_encoder.dropout=1"], "text_encoder.dropout=1.0 is no probability"),
        (["optimizer.base_lr=0"], "optimizer.base_lr=0.0 is not positive"),
        (["optimizer.betas=[0.9]"], "optimizer.betas=[0.9] must be two numbers"),
        (["checkpoint.keep=0"], "checkpoint.keep=0 keeps nothing"),
        (["trainer.max_durration=3ep"], "Did you mean trainer.max_duration?"),
        (["trainer.seed=3"], "Use seed."),
        (["trainer.device_train_microbatch_size=8"], "would split the batch of the contrastive loss"),
        (["trainer.max_duration=null"], "trainer.max_duration is missing"),
    ],
)
def test_a_mistake_names_key_value_and_remedy(overrides: list[str], message: str):
    with pytest.raises(UserError) as error:
        load(*overrides)
    assert message in str(error.value)


def test_a_template_is_given_on_the_command_line_as_the_documentation_says():
    assert load('data.prompts.template="{category}"').data.prompts.template == "{category}"
    text = "A fundus photograph of {category}"
    assert load(f'data.prompts.template="{text}"').data.prompts.template == text
    with pytest.raises(UserError, match=r"data\.prompts\.template = 'A photograph': must name \{category\} once"):
        load("data.prompts.template=A photograph")
    with pytest.raises(UserError, match=r"yamls/pretrain\.yaml: data\.prompts"):
        load("data.prompts=null")


def test_missing_yaml_suggests_the_nearest():
    with pytest.raises(UserError, match=r"yamls/pretrian.yaml does not exist.\nDid you mean yamls/pretrain.yaml\?"):
        load(path="yamls/pretrian.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objectives:\n  mim:\n", "Write `mim: {}` to switch it on"),
        ("a: [1", "is not valid yaml"),
        ("- 1\n", "must hold keys and values"),
        (
            "run_name: x\ntrainer: {max_duration: 1ep}\ndata: {paired: {batch_size: 4}, unpaired: {batch_size: 4}}\n",
            "objectives is",
        ),
    ],
)
def test_a_broken_yaml_says_how(tmp_path: Path, text: str, message: str):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load(path=str(path))
    assert message in str(error.value)


def test_overrides_win_and_the_resolved_config_loads_again(tmp_path: Path):
    config = load("optimizer.lr=0.1", "objectives.mim.weight=2")
    assert config.optimizer.learning_rate(720) == 0.1
    assert config.objectives.mim is not None
    assert config.objectives.mim.weight == 2
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(yaml.safe_dump(to_plain(config)))
    assert load_config(TrainConfig, str(resolved), []) == config


def test_the_papers_run():
    config = load()
    assert config.image_encoder.name == "vit_large_patch16_224"
    assert config.mask_ratio == 0.75
    assert config.bridge.depth == 4
    assert config.objectives.mfd is not None
    assert config.objectives.lg_clip is not None
    assert config.objectives.mfd.weight == config.objectives.lg_clip.weight == 0.01
    assert config.teacher is None
    assert TeacherConfig().at(0.7) == 0.999
    assert config.optimizer.learning_rate(720) == pytest.approx(1.5e-4 * 720 / 256)
    assert config.optimizer.warmup == "40ep"
    assert config.trainer["max_duration"] == "200ep"


def test_rows_of_the_ablation_differ_by_one_thing():
    plain = {
        row: OmegaConf.to_container(OmegaConf.load(f"yamls/pretrain/{row}.yaml"))
        for row in ("mae", "mae_clip", "bridge", "maskedclip")
    }
    for row in plain.values():
        assert isinstance(row, dict)
        row.pop("run_name")
    assert plain["maskedclip"]["objectives"].pop("mfd") == {}  # pyright: ignore
    assert plain["maskedclip"] == plain["bridge"]
    assert plain["mae_clip"] == plain["bridge"] | {"bridge": {"depth": 0}}  # pyright: ignore
    assert plain["mae_clip"]["objectives"].pop("lg_clip") == {}  # pyright: ignore
    assert plain["mae_clip"] == plain["mae"]


def test_clip_and_its_label_guided_twin_differ_by_the_label():
    plain, guided = (OmegaConf.load(f"yamls/pretrain/{name}.yaml") for name in ("clip", "clip_label_guided"))
    assert (plain.data.pop("label"), guided.data.pop("label")) == ("unique", "category")
    assert (plain.pop("run_name"), guided.pop("run_name")) == ("clip", "clip_label_guided")
    assert plain == guided


@pytest.mark.parametrize("path", sorted(str(p) for p in Path("yamls/pretrain").glob("*.yaml")))
def test_shipped_yamls_are_sound(path: str):
    unpaired = "unpaired: {" in Path(path).read_text()
    data = DATA if unpaired else DATA[:1]
    load_config(TrainConfig, path, data)


def test_config_needs_no_composer():
    """Composer takes about ten seconds to import: a typo should not cost them."""
    import subprocess

    code = "import sys, maskedclip_composer.config; sys.exit('composer' in sys.modules or 'streaming' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_bare_protocol_is_refused_too(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text("title: a\nsource: b\nknn:\nfinetune: {}\n")
    with pytest.raises(UserError, match="knn has no value"):
        load_config(ProtocolConfig, str(path), [])
    path.write_text("title: a\nsource: b\nknn: null\nfinetune: {}\n")
    assert load_config(ProtocolConfig, str(path), []).knn is None


def test_the_preset_for_24_gb_is_the_papers_run_computed_otherwise():
    """Only what `compute` says differs, and of that nothing that changes a loss."""
    remotes = ["data.paired.remote=p", "data.unpaired.remote=u"]
    paper, small = (
        to_plain(load_config(TrainConfig, path, remotes)) for path in (PRETRAIN, "yamls/pretrain_24gb.yaml")
    )
    assert small.pop("compute") == paper.pop("compute") | {"chunk_size": 30}
    assert small == paper
