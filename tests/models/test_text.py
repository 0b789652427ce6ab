import json
import shutil

import pytest
import torch

from maskedclip_composer.errors import UserError
from maskedclip_composer.models.text import (
    TextEncoder,
    TextEncoderConfig,
    build_text_encoder,
    load_tokenizer,
    mean_tokens,
)
from tests import tiny


@pytest.fixture
def encoder() -> TextEncoder:
    return TextEncoder(tiny.bert(), [-1]).eval()


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(5, tiny.VOCABULARY, (3, 6))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
    return ids, mask


def test_padding_has_no_influence(encoder):
    ids, mask = texts()
    features = mean_tokens(encoder(ids, mask), mask)
    other = torch.where(mask == 1, ids, torch.randint_like(ids, 5, tiny.VOCABULARY))
    torch.testing.assert_close(mean_tokens(encoder(other, mask), mask), features, atol=1e-6, rtol=1e-5)
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        alone = encoder(ids[row : row + 1, :length], mask[row : row + 1, :length]).mean(dim=1)
        torch.testing.assert_close(alone, features[row : row + 1], atol=1e-6, rtol=1e-5)


def test_the_feature_is_the_mean_over_all_tokens_of_the_last_layer(encoder):
    ids, mask = texts()
    hidden = encoder.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    expected = torch.stack([hidden[row, : mask[row].sum()].mean(dim=0) for row in range(3)])
    torch.testing.assert_close(mean_tokens(encoder(ids, mask), mask), expected, atol=1e-6, rtol=1e-5)


def test_words_are_compared_with_the_word_embeddings(encoder):
    hidden = torch.randn(4, tiny.TEXT_DIM)
    expected = hidden @ encoder.encoder.embeddings.word_embeddings.weight.T
    torch.testing.assert_close(encoder(words_of=hidden), expected)


def test_layers_are_averaged():
    bert = tiny.bert().eval()
    ids, mask = texts()
    hidden = bert(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    assert len(hidden) == 3  # embeddings and two layers
    mean = (hidden[1] + hidden[2] + hidden[2]) / 3
    expected = (mean * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(mean_tokens(TextEncoder(bert, [1, 2, -1])(ids, mask), mask), expected)


def test_equal_texts_share_their_encoding(batch):
    net = tiny.net("clip").eval()
    from maskedclip_composer.models.views import Views

    paired = batch["paired"]
    assert len(paired["text_ids"]) < len(paired["text_index"])
    together = Views(net, batch).text
    for row, index in enumerate(paired["text_index"].tolist()):
        mask = paired["text_mask"][[index]]
        alone = mean_tokens(net.text_encoder(paired["text_ids"][[index]], mask), mask)
        torch.testing.assert_close(together[[row]], alone, atol=1e-6, rtol=1e-5)


def test_a_saved_tower_loads_with_its_weights_and_without_its_pooler(text_tower):
    encoder = build_text_encoder(TextEncoderConfig(name=str(text_tower)))
    torch.manual_seed(3)
    for name, parameter in tiny.bert().named_parameters():
        assert torch.equal(encoder.encoder.get_parameter(name), parameter)
    assert encoder.embed_dim == tiny.TEXT_DIM
    assert not any("pooler" in name for name, _ in encoder.named_parameters())


def test_a_tower_that_is_not_pretrained_has_other_weights_and_the_same_shapes(text_tower):
    loaded = build_text_encoder(TextEncoderConfig(name=str(text_tower)))
    fresh = build_text_encoder(TextEncoderConfig(name=str(text_tower), pretrained=False))
    shapes = {name: parameter.shape for name, parameter in loaded.named_parameters()}
    assert shapes == {name: parameter.shape for name, parameter in fresh.named_parameters()}
    word = "encoder.embeddings.word_embeddings.weight"
    assert not torch.equal(loaded.get_parameter(word), fresh.get_parameter(word))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_dropout_is_the_configs_and_not_the_towers(text_tower, dropout):
    encoder = build_text_encoder(TextEncoderConfig(name=str(text_tower), dropout=dropout)).train()
    ids, mask = texts()
    assert torch.equal(encoder(ids, mask), encoder(ids, mask)) == (dropout == 0)
    assert {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)} == {dropout}


def test_the_tokenizer_is_the_towers(text_tower):
    tokenizer = load_tokenizer(TextEncoderConfig(name=str(text_tower)))
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Fundus photograph")["input_ids"])
    assert tokens == ["[CLS]", "fundus", "photograph", "[SEP]"]


@pytest.mark.parametrize("name", ["no/such-tower", "./no/such/folder", "nowhere"])
@pytest.mark.parametrize("load", [build_text_encoder, load_tokenizer])
def test_a_name_that_cannot_be_reached_is_refused(name, load):
    with pytest.raises(UserError, match=f"text_encoder.name={name} is no local folder"):
        load(TextEncoderConfig(name=name))


@pytest.mark.parametrize("damage", ["empty folder", "no weights", "no json", "unknown type", "truncated weights"])
def test_a_folder_that_holds_no_encoder_is_refused(text_tower, tmp_path, damage):
    folder = shutil.copytree(text_tower, tmp_path / "tower")
    weights = folder / "model.safetensors"
    if damage == "empty folder":
        shutil.rmtree(folder)
        folder.mkdir()
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no json":
        (folder / "config.json").write_text("{")
    elif damage == "unknown type":
        (folder / "config.json").write_text(json.dumps({"model_type": "abacus"}))
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"is a folder without a usable transformers encoder"):
        build_text_encoder(TextEncoderConfig(name=str(folder)))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"layers": [1, 2]}, r"leaves out the last layer"), ({"dropout": 1.0}, r"text_encoder.dropout=1.0")],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        TextEncoderConfig(**options)
