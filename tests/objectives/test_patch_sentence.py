import inspect

import pytest
import torch
import torch.nn.functional as F

from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.transport import transport_similarity
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.views import Views
from maskedclip_composer.objectives.base import Objective
from maskedclip_composer.objectives.patch_sentence import PatchSentenceConfig, mean_by_sentence
from maskedclip_composer.types import Batch
from tests import tiny
from tests.objectives import mlip

MODES = ["contrast", "align"]


def built(mode: str = "contrast", **settings) -> tuple[PretrainNet, Objective]:
    net = mlip.net(PatchSentenceConfig(mode=mode, embed_dim=16, **settings), bridge_depth=1).eval()
    objective = net.objectives["patch_sentence"]
    assert isinstance(objective, Objective)
    return net, objective


def loss_and_gradients(net: PretrainNet, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    net.zero_grad(set_to_none=True)
    loss = MaskedCLIP(net).loss(net(batch), batch)["total"]
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mode", MODES)
def test_it_returns_exactly_the_arguments_of_its_loss(mode):
    net, objective = built(mode)
    outputs = net(mlip.batch(unpaired=2))["patch_sentence"]
    assert set(outputs) == set(inspect.signature(type(objective).loss).parameters)
    assert {value.dtype for key, value in outputs.items() if key != "labels"} == {torch.float32}


def by_hand(net: PretrainNet, batch: Batch) -> torch.Tensor:
    """Similarities of visible patches and mean tokens of the sentences, text by text."""
    heads, part = net.objectives["patch_sentence"].heads, batch["paired"]
    views = Views(net, batch)
    patches = net.branch.image_encoder(views.images, views.mask.ids_keep)[: len(part["image"]), 1:]
    tokens = net.text_encoder(part["text_ids"], part["text_mask"])
    columns = []
    for text in part["text_index"].tolist():
        sentences = part["text_sentence"][text]
        means = [tokens[text, sentences == number].mean(dim=0) for number in range(int(sentences.max()) + 1)]
        features = F.normalize(torch.stack(means) @ heads.sentence_projection.weight.T, dim=-1)[None]
        projected = F.normalize(patches @ heads.patch_projection.weight.T, dim=-1)
        columns.append(transport_similarity(projected, features, torch.ones(1, len(means))))
    return torch.cat(columns, dim=1)


def test_logits_are_the_transports_of_visible_patches_to_mean_tokens_of_sentences():
    net, _ = built()
    batch = mlip.batch(unpaired=2)
    outputs = net(batch)["patch_sentence"]
    torch.testing.assert_close(outputs["logits"], by_hand(net, batch) / 0.07, atol=2e-5, rtol=1e-5)
    assert torch.equal(outputs["labels"], batch["paired"]["label"])


def test_alignment_is_of_each_image_with_its_own_report():
    net, _ = built("align")
    batch = mlip.batch(unpaired=2)
    similarity = net(batch)["patch_sentence"]["similarity"]
    torch.testing.assert_close(similarity, by_hand(net, batch).diagonal(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_it_trains_the_encoders_and_its_heads_and_not_the_bridge(mode):
    net, _ = built(mode)
    trainable = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    expected = {name for name in trainable if not name.startswith("branch.bridge.")}
    assert mlip.reached(net, mlip.batch(unpaired=2)) == expected
    heads = {f"objectives.patch_sentence.heads.{name}_projection.weight" for name in ("patch", "sentence")}
    assert {name for name in expected if name.startswith("objectives.")} == heads


def padded(batch: Batch) -> Batch:
    """The same texts with three more places of padding."""
    wider = {name: dict(part) for name, part in batch.items()}
    for key, fill in (("text_ids", 0), ("text_mask", 0), ("text_sentence", -1)):
        wider["paired"][key] = F.pad(batch["paired"][key], (0, 3), value=fill)
    return wider  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("mode", MODES)
def test_padding_has_no_influence(mode):
    net, _ = built(mode)
    batch = mlip.batch()
    loss, gradients = loss_and_gradients(net, batch)
    wider, others = loss_and_gradients(net, padded(batch))
    torch.testing.assert_close(wider, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("mode", MODES)
def test_places_for_more_sentences_have_no_influence(mode, monkeypatch):
    """Another rank may have a report of more sentences."""
    net, _ = built(mode)
    batch = mlip.batch()
    loss, gradients = loss_and_gradients(net, batch)
    monkeypatch.setattr("maskedclip_composer.objectives.patch_sentence.max_over_ranks", lambda value: value + 4)
    wider, others = loss_and_gradients(net, batch)
    torch.testing.assert_close(wider, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("sentence", [0, -1], ids=["one sentence", "none"])
@pytest.mark.parametrize("mode", MODES)
def test_texts_of_one_sentence_or_none_keep_everything_finite(mode, sentence):
    net, _ = built(mode)
    batch = mlip.batch()
    batch["paired"]["text_sentence"] = torch.where(batch["paired"]["text_sentence"] >= 0, sentence, -1)
    loss, gradients = loss_and_gradients(net, batch)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_one_pair_is_enough():
    for mode in MODES:
        net, objective = built(mode)
        loss, gradients = loss_and_gradients(net, mlip.batch(pairs=1))
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        outputs = {key: value.detach() for key, value in net(mlip.batch(pairs=1))["patch_sentence"].items()}
        assert all(value.isfinite() for value in objective.diagnose(**outputs).values())


def test_means_are_of_the_tokens_of_each_sentence():
    tokens = torch.arange(14.0).view(2, 7, 1)
    sentences = torch.tensor([[-1, 0, 0, 1, 2, 2, -1], [-1, -1, -1, -1, -1, -1, -1]])
    means, mask = mean_by_sentence(tokens, sentences, 4)
    assert means[:, :, 0].tolist() == [[1.5, 3.0, 4.5, 0.0], [7.0, 0.0, 0.0, 0.0]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


def test_the_heat_map_is_the_cosine_with_the_nearest_own_sentence():
    net, objective = built()
    batch = mlip.batch(unpaired=2)
    outputs = net(batch)
    heat = outputs["shown"]["patch_sentence"]
    views = Views(net, batch)
    patches, sentences, mask = objective.heads(views)
    assert heat.shape == (4, tiny.NUM_PATCHES)
    assert torch.equal(heat.isnan(), views.mask.mask[:4] == 1)
    for pair in range(4):
        for place, patch in zip(views.mask.ids_keep[pair].tolist(), patches[pair], strict=True):
            cosines = [patch @ sentence for sentence, valid in zip(sentences[pair], mask[pair], strict=True) if valid]
            assert heat[pair, place].item() == pytest.approx(max(cosines).item(), abs=1e-6)


def test_diagnoses():
    _, objective = built(temperature=0.5)
    labels = torch.tensor([0, 1, 0])
    similarity = torch.tensor([[0.9, 0.0, 0.5], [0.6, 0.3, 0.0], [0.7, 0.1, 0.7]])
    numbers = objective.diagnose(logits=similarity / 0.5, labels=labels)
    assert numbers["retrieval_at_1"].item() == pytest.approx(2 / 3)
    assert numbers["margin"].item() == pytest.approx((0.9 + 0.5 + 0.3 + 0.7 + 0.7) / 5 - (0.6 + 0.1) / 4)


@pytest.mark.parametrize("name", ["weight", "embed_dim", "epsilon", "iterations", "temperature"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_settings_that_cannot_be_are_refused(name, value):
    with pytest.raises(UserError, match=f"objectives.patch_sentence.{name}={value} is not positive"):
        PatchSentenceConfig(**{name: value})
