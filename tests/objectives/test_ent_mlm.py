import inspect

import pytest
import torch
from transformers import BertTokenizerFast

from maskedclip_composer.errors import UserError
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.objectives.ent_mlm import EntMlmConfig
from tests import tiny
from tests.objectives import mmclip


@pytest.fixture
def tokenizer(text_tower) -> BertTokenizerFast:
    return BertTokenizerFast.from_pretrained(text_tower)


def config(**options) -> EntMlmConfig:
    return EntMlmConfig(**{"dim": 32, "depth": 2, "num_heads": 2} | options)


def loss_and_gradients(net: PretrainNet, batch) -> tuple[float, dict[str, torch.Tensor | None]]:
    net.zero_grad(set_to_none=True)
    model = MaskedCLIP(net)
    loss = model.loss(model(batch), batch)["ent_mlm"]
    loss.backward()
    return loss.item(), {name: p.grad for name, p in net.named_parameters() if p.requires_grad}


def test_every_parameter_is_trained_the_image_encoders_too(tokenizer):
    _, found = loss_and_gradients(mmclip.net(tokenizer, config()), mmclip.batch())
    assert not [name for name, grad in found.items() if grad is None or not grad.abs().sum() > 0]


def test_outputs_are_the_arguments_of_the_loss(tokenizer):
    net = mmclip.net(tokenizer, config())
    batch = mmclip.batch()
    outputs, part = net(batch)["ent_mlm"], batch["paired"]
    assert set(outputs) == set(inspect.signature(type(net.objectives["ent_mlm"]).loss).parameters)
    # The entity is the first word, and the draws hide that of pairs 0 and 2.
    index = part["text_index"][[0, 2]]
    entity = part["text_entity"][index] == 0
    assert outputs["targets"].tolist() == part["text_ids"][index][entity].tolist()
    assert outputs["logits"].shape == (int(entity.sum()), tiny.VOCABULARY)
    assert outputs["denominator"] == entity.sum()


def test_the_prediction_does_not_see_what_is_hidden(tokenizer):
    net = mmclip.net(tokenizer, config())
    batch = mmclip.batch(pairs=2)  # of texts of their own
    part = batch["paired"]
    before = net(batch)["ent_mlm"]
    part["text_ids"][0][part["text_entity"][0] == 0] = 40
    after = net(batch)["ent_mlm"]
    assert set(after["targets"].tolist()) == {40}
    torch.testing.assert_close(after["logits"], before["logits"])


def test_the_prediction_sees_its_image_and_its_text(tokenizer):
    net = mmclip.net(tokenizer, config())
    before = net(mmclip.batch())["ent_mlm"]["logits"]
    batch = mmclip.batch()
    batch["paired"]["image"] = batch["paired"]["image"].flip(0)
    assert not torch.allclose(net(batch)["ent_mlm"]["logits"], before, atol=1e-4)
    batch = mmclip.batch()
    batch["paired"]["text_ids"][:, 0] = 30
    assert not torch.allclose(net(batch)["ent_mlm"]["logits"], before, atol=1e-4)


def test_padding_has_no_influence(tokenizer):
    net = mmclip.net(tokenizer, config())
    batch = mmclip.batch()
    before = net(batch)["ent_mlm"]["logits"]
    part = batch["paired"]
    assert not part["text_mask"].all()
    part["text_ids"][part["text_mask"] == 0] = 30
    torch.testing.assert_close(net(batch)["ent_mlm"]["logits"], before)


def test_words_are_tied_to_the_text_encoders_embedding(tokenizer):
    net = mmclip.net(tokenizer, config())
    names = [
        name for name, parameter in net.objectives["ent_mlm"].named_parameters() if tiny.VOCABULARY in parameter.shape
    ]
    assert names == ["word_bias"]
    batch = mmclip.batch()
    before = net(batch)["ent_mlm"]["logits"]
    unused = 59
    while (batch["paired"]["text_ids"] == unused).any():
        unused -= 1
    with torch.no_grad():
        net.text_encoder.encoder.embeddings.word_embeddings.weight[unused] *= 2
        net.objectives["ent_mlm"].word_bias[unused] += 1
    after = net(batch)["ent_mlm"]["logits"]
    others = torch.arange(tiny.VOCABULARY) != unused
    torch.testing.assert_close(after[:, others], before[:, others])
    torch.testing.assert_close(after[:, unused], 2 * before[:, unused] + 1)


def test_reports_without_entities_lose_words(tokenizer):
    net = mmclip.net(tokenizer, config(word_ratio=0.3))
    batch = mmclip.batch(with_entities=False)
    part = batch["paired"]
    words = int((part["text_word"][part["text_index"][[0, 2]]] >= 0).sum())
    loss, _ = loss_and_gradients(net, batch)
    assert loss > 0
    assert len(net(batch)["ent_mlm"]["targets"]) == words


@pytest.mark.parametrize("with_entities", [True, False])
def test_where_nothing_is_hidden_loss_and_gradients_are_zero_and_there(tokenizer, with_entities):
    """DDP waits in every step for the gradient of every parameter."""
    batch = mmclip.batch(with_entities=with_entities)
    batch["paired"]["text_noise"].fill_(0.99)
    net = mmclip.net(tokenizer, config())
    loss, found = loss_and_gradients(net, batch)
    assert loss == 0
    assert not [name for name, grad in found.items() if grad is None or grad.any()]
    assert net.objectives["ent_mlm"].diagnose(**net(batch)["ent_mlm"]) == {}


@pytest.mark.parametrize("noise", [0.2, 0.99])
def test_under_autocast_the_loss_is_nearly_the_same(tokenizer, noise):
    net, batch = mmclip.net(tokenizer, config()), mmclip.batch()
    batch["paired"]["text_noise"].fill_(noise)
    exact, _ = loss_and_gradients(net, batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss, found = loss_and_gradients(net, batch)
    assert loss == pytest.approx(exact, abs=0.05)
    assert all(grad is not None and grad.isfinite().all() for grad in found.values())


def test_equal_texts_have_draws_of_their_own(tokenizer):
    batch = mmclip.batch(pairs=3)  # the last shares the first one's text
    part = batch["paired"]
    assert part["text_index"].tolist() == [0, 1, 0]
    spans = (part["text_entity"][0] == 0).sum().item()
    net = mmclip.net(tokenizer, config())
    assert len(net(batch)["ent_mlm"]["targets"]) == 2 * spans
    part["text_noise"][2] = 0.9
    assert len(net(batch)["ent_mlm"]["targets"]) == spans


def test_diagnostics_are_the_share_of_words_that_are_right(tokenizer):
    objective = mmclip.net(tokenizer, config()).objectives["ent_mlm"]
    logits = torch.eye(4)[[0, 1, 2, 3]]
    found = objective.diagnose(logits=logits, targets=torch.tensor([0, 1, 3, 3]), denominator=torch.tensor(4.0))
    assert {name: value.item() for name, value in found.items()} == {"accuracy": 0.75, "hidden_tokens": 4.0}


def test_it_learns_the_words_of_one_batch(tokenizer):
    net, batch = mmclip.net(tokenizer, config()), mmclip.batch()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    first, _ = loss_and_gradients(net, batch)
    for _ in range(40):
        optimizer.step()
        last, _ = loss_and_gradients(net, batch)
    assert last < first / 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entity_ratio": 0.0}, r"objectives.ent_mlm.entity_ratio=0.0 is no chance above 0"),
        ({"word_ratio": 1.5}, r"objectives.ent_mlm.word_ratio=1.5 is no chance above 0"),
        ({"depth": 0}, r"objectives.ent_mlm.depth=0 is not positive"),
        ({"dim": 30}, r"objectives.ent_mlm.dim=30 must be divisible"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        config(**options)


def test_a_tokenizer_without_a_mask_token_is_refused(text_tower):
    tokenizer = BertTokenizerFast.from_pretrained(text_tower)
    tokenizer.mask_token = None
    with pytest.raises(UserError, match=r"objectives.ent_mlm needs a text encoder that was trained with a mask token"):
        config().build(mmclip.parts(tokenizer))
