"""A step of MMCLIP's two objectives, told one image and one text at a time.

Nothing is padded and nothing shares a batch here, so padding, the order of the two streams, equal texts, positions and
the places of hidden patches and words are all compared at once.
"""

import math

import pytest
import torch
from torch import Tensor
from transformers import BertTokenizerFast

from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.score_masking import responsive_cosine_score, text_to_image_score
from maskedclip_composer.models.transformer import sincos_positions
from maskedclip_composer.objectives.att_mim import AttMimConfig
from maskedclip_composer.objectives.ent_mlm import EntMlmConfig
from tests import tiny
from tests.objectives import mmclip

SIDE = tiny.IMAGE_SIZE // tiny.PATCH_SIZE
ATT_MIM = {"dim": 32, "depth": 2, "num_heads": 2, "mask_ratio": 0.6, "explore": 0.2}
DISEASES = ["glaucoma", "a fundus photograph"]  # of different lengths


@pytest.fixture
def tokenizer(text_tower) -> BertTokenizerFast:
    return BertTokenizerFast.from_pretrained(text_tower)


def stirred(net: PretrainNet) -> PretrainNet:
    """Give biases, norms and mask tokens values of their own: at their first ones a missing part would not show."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def text_of(part, pair: int, key: str) -> Tensor:
    """Return one pair's text without padding, [tokens]."""
    row = part["text_index"][pair]
    return part[key][row][part["text_mask"][row] > 0]


def encode_text(net: PretrainNet, ids: Tensor) -> Tensor:
    assert net.text_encoder is not None
    return net.text_encoder(ids[None], torch.ones_like(ids)[None])[0]


def image_of(net: PretrainNet, part, index: int) -> Tensor:
    return net.normalise(part["image"][index : index + 1])


def hidden_patches(scores: list[float], noise: list[float]) -> list[int]:
    ranked = sorted(range(len(scores)), key=lambda i: -scores[i])
    high = round(len(scores) * ATT_MIM["mask_ratio"])
    top, rest = (sorted(group, key=lambda i: noise[i]) for group in (ranked[:high], ranked[high:]))
    return top[: round(high * (1 - ATT_MIM["explore"]))] + rest[: round(len(rest) * ATT_MIM["explore"])]


def patch_of(image: Tensor, index: int) -> Tensor:
    """Return a patch's values in the order row, column, channel."""
    row, column = divmod(index, SIDE)
    size = tiny.PATCH_SIZE
    return image[0, :, row * size : (row + 1) * size, column * size : (column + 1) * size].permute(1, 2, 0).flatten()


def error_of_image(net: PretrainNet, image: Tensor, noise: Tensor, tokens_of_text: Tensor, words: Tensor) -> float:
    """Hide patches of one image [1, 3, size, size], reconstruct them with its text [tokens, dim], return the error."""
    space, text = net.objectives["joint_space"], net.objectives["att_mim"].embed_text(tokens_of_text)
    objective, encoder = net.objectives["att_mim"], net.branch.image_encoder
    config = objective.config
    patches = objective.embed_image(encoder(image)[0, 1:])
    joint = encoder(image)[:, 1:] @ space.image.T, (tokens_of_text @ space.text.T)[words][None]
    one = *joint, torch.ones(1, int(words.sum()), dtype=torch.bool)
    scores = (
        text_to_image_score(*one, config.attention_temperature)
        if config.score == "text_to_image"
        else responsive_cosine_score(*one)
    )
    hidden = hidden_patches(scores[0].tolist(), noise.tolist())
    visible = [i for i in range(tiny.NUM_PATCHES) if i not in hidden]
    if config.mask_stage == "input":
        patches = dict(zip(visible, objective.embed_image(encoder(image, torch.tensor([visible]))[0, 1:]), strict=True))
    positions = sincos_positions((SIDE, SIDE), config.dim)[0, 1:]
    tokens = [(objective.mask_token[0, 0] if i in hidden else patches[i]) + positions[i] for i in range(len(scores[0]))]
    predicted = objective.predict(objective.decoder(torch.stack(tokens)[None], text[None])[0])
    return sum((predicted[i] - patch_of(image, i)).square().mean().item() for i in hidden) / len(hidden)


def attention_masked_step(net: PretrainNet, tokenizer: BertTokenizerFast, batch) -> float:
    total = 0.0
    paired, unpaired = batch["paired"], batch["unpaired"]
    for pair in range(len(paired["image"])):
        ids = text_of(paired, pair, "text_ids")
        text = encode_text(net, ids)
        words = torch.tensor([number not in tokenizer.all_special_ids for number in ids.tolist()])
        image = image_of(net, paired, pair)
        total += error_of_image(net, image, paired["noise"][pair], text, words) / len(paired["image"])
    prompts = [tokenizer(f"There is {name}.", return_tensors="pt")["input_ids"][0] for name in DISEASES]
    diseases = torch.stack([encode_text(net, ids).mean(dim=0) for ids in prompts])
    for index in range(len(unpaired["image"])):
        image = image_of(net, unpaired, index)
        every = torch.ones(len(DISEASES), dtype=torch.bool)
        total += error_of_image(net, image, unpaired["noise"][index], diseases, every) / len(unpaired["image"])
    return total


@pytest.mark.parametrize(
    "score", [{"score": "text_to_image", "attention_temperature": 0.3}, {"score": "responsive_cosine"}]
)
@pytest.mark.parametrize("stage", ["feature", "input"])
def test_attention_masked_image_modelling(tokenizer, score, stage):
    config = AttMimConfig(**ATT_MIM, **score, mask_stage=stage, diseases=DISEASES)
    net, batch = stirred(mmclip.net(tokenizer, config)), mmclip.batch(5, 3)
    assert not batch["paired"]["text_mask"].all()
    model = MaskedCLIP(net)
    with torch.no_grad():
        loss = model.loss(model(batch), batch)["att_mim"].item()
        assert loss == pytest.approx(attention_masked_step(net, tokenizer, batch), rel=1e-4)


def is_hidden(word: list[int], entity: list[int], noise: list[float]) -> list[bool]:
    spans, ratio = (entity, 0.5) if max(entity) >= 0 else (word, 0.15)
    return [number >= 0 and noise[spans.index(number)] < ratio for number in spans]


def entity_masked_step(net: PretrainNet, tokenizer: BertTokenizerFast, part) -> tuple[float, int]:
    """Return the loss and the number of hidden tokens."""
    objective, errors = net.objectives["ent_mlm"], []
    for pair in range(len(part["image"])):
        ids, word, entity = (text_of(part, pair, key) for key in ("text_ids", "text_word", "text_entity"))
        hidden = is_hidden(word.tolist(), entity.tolist(), part["text_noise"][pair].tolist())
        seen = torch.tensor([tokenizer.mask_token_id if gone else i for i, gone in zip(ids, hidden, strict=True)])
        text = objective.embed_text(encode_text(net, seen))
        image = objective.embed_image(net.branch.image_encoder(image_of(net, part, pair))[0, 1:])
        decoded = objective.decoder(text[None], image[None])[0]
        for place in range(len(ids)):
            if hidden[place]:
                words = net.text_encoder.encoder.embeddings.word_embeddings.weight
                scores = (words @ objective.head(decoded[place]) + objective.word_bias).double()
                errors.append(-math.log(scores.exp()[ids[place]] / scores.exp().sum()))
    return sum(errors) / len(errors), len(errors)


def test_entity_masked_language_modelling(tokenizer):
    net, batch = stirred(mmclip.net(tokenizer, EntMlmConfig(dim=32, depth=2, num_heads=2))), mmclip.batch(6, 0)
    part = batch["paired"]
    part["text_entity"][1] = -1  # this text has no entity, so it loses words
    part["text_noise"] = torch.rand(part["text_noise"].shape, generator=torch.Generator().manual_seed(2)) * 0.3
    part["text_noise"][0] = 0.9  # and this pair loses nothing
    model = MaskedCLIP(net)
    with torch.no_grad():
        outputs = model(batch)
        loss, count = entity_masked_step(net, tokenizer, part)
        assert len(outputs["ent_mlm"]["targets"]) == count > 3
        assert model.loss(outputs, batch)["ent_mlm"].item() == pytest.approx(loss, rel=1e-4)
