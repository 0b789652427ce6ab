import pytest

from maskedclip_composer.config_file import load_config
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.config import EvaluateConfig

GIVEN = ["checkpoint=runs/a", "data=sets/b"]


def test_the_shipped_yaml_is_the_papers_protocol():
    config = load_config(EvaluateConfig, "yamls/evaluate.yaml", GIVEN)
    assert config.probe is not None
    recipe = config.finetune
    assert recipe is not None
    assert (recipe.batch_size, recipe.epochs, recipe.warmup_epochs, recipe.lr) == (16, 50, 10, 5e-4)
    assert load_config(EvaluateConfig, "yamls/evaluate.yaml", [*GIVEN, "finetune=null"]).finetune is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fraction=0", "fraction=0"),
        ("fraction=10", "ten per cent is 0.1"),
        ("seeds=[1,1]", "seeds"),
        ("seeds=[]", "seeds"),
        ("workers=-1", "workers=-1"),
        ("image_size=0", "image_size=0"),
        ("probe.c_grid=[0]", "c_grid"),
        ("probe.batch_size=0", "probe.batch_size=0"),
        ("finetune.epochs=10", "warmup_epochs=10"),
        ("finetune.min_lr=1", "min_lr=1"),
        ("finetune.drop_path=1", "drop_path=1"),
        ("finetune.random_erasing=-1", "random_erasing=-1"),
        ("finetune.layer_decay=0", "layer_decay=0"),
        ("finetune.lr=0", "finetune.lr=0"),
        ("finetune.precision=fp8", "precision"),
    ],
)
def test_every_message_names_its_key(override, message):
    with pytest.raises(UserError, match=message):
        load_config(EvaluateConfig, "yamls/evaluate.yaml", [*GIVEN, override])


def test_one_protocol_must_be_on():
    with pytest.raises(UserError, match="neither probe nor finetune"):
        load_config(EvaluateConfig, "yamls/evaluate.yaml", [*GIVEN, "probe=null", "finetune=null"])
