import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.entities import EntityConfig
from maskedclip_composer.data.prompts import PromptConfig
from maskedclip_composer.data.sentences import SentenceConfig
from maskedclip_composer.errors import UserError

STREAM = {"remote": "/sets/a", "batch_size": 4}


def load(**keys: object) -> DataConfig:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), keys))


def test_loads_as_an_omegaconf_structured_config():
    config = load(paired=STREAM, flip=0.25, label="unique")
    assert config == DataConfig(paired=StreamConfig(**STREAM), flip=0.25, label="unique")
    assert isinstance(config.paired, StreamConfig)
    assert config.unpaired is None


@pytest.mark.parametrize(
    "keys",
    [
        {"paired": {"remote": "/a"}},
        {"paired": STREAM, "label": "both"},
        {"paired": STREAM, "colour": 1},
        {"paired": STREAM, "entities": {"tagger": "radgraph"}},
    ],
)
def test_omegaconf_refuses_missing_batch_size_bad_literal_and_unknown_key(keys):
    with pytest.raises(OmegaConfBaseException):
        load(**keys)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, ["data:", "data.paired", "data.unpaired"]),
        ({"paired": {"batch_size": 4}}, ["data.paired", "data.paired.remote="]),
        ({"unpaired": {"remote": "/a", "batch_size": 0}}, ["data.unpaired.batch_size = 0", "leave data.unpaired out"]),
        ({"paired": STREAM, "unpaired": STREAM}, ["data.unpaired", "/sets/a", "leave data.unpaired out"]),
        ({"paired": STREAM, "cache_limit": "1gb"}, ["data.cache_limit = 1gb", "/sets/a", "data.paired.local"]),
        ({"paired": STREAM, "image_size": 0}, ["data.image_size = 0"]),
        ({"paired": STREAM, "min_crop": 0.0}, ["data.min_crop = 0.0"]),
        ({"paired": STREAM, "min_crop": 1.5}, ["data.min_crop = 1.5"]),
        ({"paired": STREAM, "flip": -0.1}, ["data.flip = -0.1"]),
        ({"paired": STREAM, "max_tokens": 2}, ["data.max_tokens = 2"]),
        ({"paired": STREAM, "prompts": {"template": "A photograph"}}, ["data.prompts.template = 'A photograph'"]),
        ({"paired": STREAM, "join_texts": True}, ["data.join_texts = true", "set data.label=unique"]),
        ({"unpaired": STREAM, "label": "unique", "join_texts": True}, ["data.join_texts", "add data.paired"]),
        ({"unpaired": STREAM, "entities": {}}, ["data.entities", "data.paired is not given"]),
        ({"unpaired": STREAM, "sentences": {}}, ["data.sentences", "data.paired is not given"]),
        ({"paired": STREAM, "sentences": {"max_sentences": 0}}, ["data.sentences.max_sentences = 0"]),
        ({"paired": STREAM, "decode": "scaled", "crops": {}}, ["data.decode = scaled", "set data.decode=exact"]),
        ({"paired": STREAM, "num_workers": -1}, ["data.num_workers = -1"]),
        ({"paired": STREAM, "shuffle_block_size": 0}, ["data.shuffle_block_size = 0"]),
        ({"paired": STREAM, "download_retry": -1}, ["data.download_retry = -1"]),
        ({"paired": STREAM, "download_timeout": 0}, ["data.download_timeout = 0"]),
    ],
)
def test_every_wrong_value_is_named_with_its_remedy(keys, said):
    with pytest.raises(UserError) as caught:
        load(**keys)
    for part in said:
        assert part in str(caught.value)


def test_prompts_are_on_unless_told_otherwise():
    assert load(paired=STREAM).prompts == PromptConfig(pack="retina-en", expert=True, template=None)
    assert load(paired=STREAM, prompts={"expert": False}).prompts == PromptConfig(expert=False)


def test_an_empty_key_switches_entities_and_sentences_on():
    assert (load(paired=STREAM).entities, load(paired=STREAM).sentences) == (None, None)
    config = load(paired=STREAM, entities={}, sentences={}, join_texts=True, label="unique")
    assert config.entities == EntityConfig(tagger="lexicon", lexicon="retina", model="en_core_sci_sm")
    assert config.sentences == SentenceConfig(max_sentences=16)


def test_a_mode_given_in_python_is_checked_too():
    with pytest.raises(UserError, match=r"data\.label = both"):
        DataConfig(paired=StreamConfig(**STREAM), label="both")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"data\.decode = fast: must be exact or scaled"):
        DataConfig(paired=StreamConfig(**STREAM), decode="fast")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("stream", "remote", "local"),
    [
        ({"local": "/sets/a"}, None, "/sets/a"),
        ({"remote": "/sets/a"}, None, "/sets/a"),
        ({"remote": "file:///sets/a"}, None, "/sets/a"),
        ({"remote": "/sets/a", "local": "/sets/../sets/a"}, None, "/sets/a"),
        ({"remote": "/sets/a", "local": "/fast/a"}, "/sets/a", "/fast/a"),
        ({"remote": "s3://bucket/a", "local": "/fast/a"}, "s3://bucket/a", "/fast/a"),
    ],
)
def test_a_folder_is_read_in_place_and_anything_else_is_cached(stream, remote, local):
    assert StreamConfig(batch_size=1, **stream).location() == (remote, local)


def test_a_url_has_a_cache_of_its_own():
    first, second = (StreamConfig(remote=f"s3://bucket/{name}", batch_size=1).location()[1] for name in "ab")
    assert first != second
    assert first == StreamConfig(remote="s3://bucket/a", batch_size=9).location()[1]
    assert "/.cache/maskedclip_composer/" in first
