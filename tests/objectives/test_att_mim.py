import inspect

import pytest
import torch
from transformers import BertTokenizerFast

from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.reconstruction import masked_patch_mse
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.score_masking import responsive_cosine_score, text_to_image_score
from maskedclip_composer.models.text import mean_tokens
from maskedclip_composer.objectives.att_mim import AttMimConfig
from maskedclip_composer.objectives.ent_mlm import EntMlmConfig
from maskedclip_composer.objectives.lg_clip import LgClipConfig
from maskedclip_composer.objectives.mim import patchify
from tests import tiny
from tests.objectives import mmclip

STAGES, SCORES = ("feature", "input"), ("text_to_image", "responsive_cosine")


@pytest.fixture
def tokenizer(text_tower) -> BertTokenizerFast:
    return BertTokenizerFast.from_pretrained(text_tower)


def config(**options) -> AttMimConfig:
    return AttMimConfig(**{"dim": 32, "depth": 2, "num_heads": 2} | options)


def gradients(net: PretrainNet, batch) -> dict[str, torch.Tensor | None]:
    model = MaskedCLIP(net)
    model.loss(model(batch), batch)["att_mim"].backward()
    return {name: parameter.grad for name, parameter in net.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("counts", [(4, 4), (4, 0), (0, 4)])
def test_every_parameter_is_trained_with_both_streams_and_with_one(tokenizer, score, stage, counts):
    found = gradients(mmclip.net(tokenizer, config(score=score, mask_stage=stage)), mmclip.batch(*counts))
    assert not [name for name, grad in found.items() if grad is None or not grad.abs().sum() > 0]


@pytest.mark.parametrize("stage", STAGES)
def test_outputs_are_the_arguments_of_the_loss_and_the_scores_are_shown(tokenizer, stage):
    net = mmclip.net(tokenizer, config(mask_stage=stage))
    batch = mmclip.batch(4, 3)
    outputs = net(batch)
    assert set(outputs["att_mim"]) == set(inspect.signature(type(net.objectives["att_mim"]).loss).parameters)
    assert outputs["att_mim"]["prediction"].shape == (7, 16, 192)
    assert outputs["att_mim"]["num_pairs"] == 4
    assert outputs["shown"]["att_mim_score"].shape == (7, 16)
    images = net.normalise(torch.cat([batch["paired"]["image"], batch["unpaired"]["image"]]))
    assert torch.equal(outputs["att_mim"]["target"], patchify(images, tiny.PATCH_SIZE))


@pytest.mark.parametrize("score", SCORES)
def test_scores_compare_patches_with_words_and_unpaired_ones_with_diseases(tokenizer, score):
    net = mmclip.net(tokenizer, config(score=score))
    batch = mmclip.batch()
    part = batch["paired"]
    ids = part["text_ids"][part["text_index"]]
    words = (ids >= 5) & (part["text_mask"][part["text_index"]] > 0)  # neither [CLS], [SEP] nor padding
    space = net.objectives["joint_space"]
    text = net.text_encoder(ids, part["text_mask"][part["text_index"]]) @ space.text.T
    prompts = tokenizer(["There is glaucoma.", "There is fundus."], padding=True, return_tensors="pt")
    means = mean_tokens(net.text_encoder(prompts["input_ids"], prompts["attention_mask"]), prompts["attention_mask"])
    diseases = (means @ space.text.T).expand(4, -1, -1)
    rows = []
    for name, tokens, valid in [("paired", text, words), ("unpaired", diseases, torch.ones(4, 2, dtype=torch.bool))]:
        patches = net.branch.image_encoder(net.normalise(batch[name]["image"]))[:, 1:] @ space.image.T
        if score == "text_to_image":
            rows.append(text_to_image_score(patches, tokens, valid, 0.1))
        else:
            rows.append(responsive_cosine_score(patches, tokens, valid))
    torch.testing.assert_close(net(batch)["shown"]["att_mim_score"], torch.cat(rows))


def test_patches_are_ranked_where_the_contrastive_loss_has_aligned_them(tokenizer):
    """The maps into the decoder learn to reconstruct: what they are must not change a score."""
    net, batch = mmclip.net(tokenizer, LgClipConfig(embed_dim=16), config()), mmclip.batch()
    before = net(batch)["shown"]["att_mim_score"]
    with torch.no_grad():
        net.objectives["att_mim"].embed_text.weight.normal_()
        net.objectives["att_mim"].embed_image.weight.normal_()
    assert torch.equal(net(batch)["shown"]["att_mim_score"], before)
    with torch.no_grad():
        net.objectives["lg_clip"].image_projection.weight.normal_()
    assert not torch.allclose(net(batch)["shown"]["att_mim_score"], before)


def test_half_of_the_patches_are_hidden_and_most_of_them_score_high(tokenizer):
    outputs = mmclip.net(tokenizer, config())(mmclip.batch())
    mask, scores = outputs["att_mim"]["mask"], outputs["shown"]["att_mim_score"]
    top = torch.zeros_like(mask).scatter(1, scores.topk(8, dim=1).indices, 1.0)
    assert mask.sum(dim=1).tolist() == [8] * 8
    assert (mask * top).sum(dim=1).tolist() == [7] * 8


def test_the_mask_has_no_gradient(tokenizer):
    outputs = mmclip.net(tokenizer, config())(mmclip.batch())
    assert not outputs["att_mim"]["mask"].requires_grad
    assert not outputs["shown"]["att_mim_score"].requires_grad


def test_streams_do_not_touch_each_other_and_their_losses_add_up(tokenizer):
    net = mmclip.net(tokenizer, config())
    model, batch = MaskedCLIP(net), mmclip.batch()
    both = model(batch)
    alone = [model({name: batch[name]}) for name in ("paired", "unpaired")]
    torch.testing.assert_close(both["att_mim"]["prediction"], torch.cat([a["att_mim"]["prediction"] for a in alone]))
    losses = [model.loss(outputs, batch)["att_mim"] for outputs in alone]
    torch.testing.assert_close(model.loss(both, batch)["att_mim"], losses[0] + losses[1])
    outputs = alone[1]["att_mim"]
    expected = masked_patch_mse(outputs["prediction"], outputs["target"], outputs["mask"])
    torch.testing.assert_close(losses[1], expected)


def test_the_text_reaches_the_reconstruction(tokenizer):
    net, batch = mmclip.net(tokenizer, config()), mmclip.batch()
    before = net(batch)["att_mim"]
    objective = net.objectives["att_mim"]
    objective.prompt_ids[:, 1:] = 30
    after = net(batch)["att_mim"]
    torch.testing.assert_close(after["prediction"][:4], before["prediction"][:4])
    assert not torch.allclose(after["prediction"][4:], before["prediction"][4:], atol=1e-4)


def test_padding_of_the_text_has_no_influence(tokenizer):
    net, batch = mmclip.net(tokenizer, config()), mmclip.batch()
    before = net(batch)["att_mim"]["prediction"]
    part = batch["paired"]
    assert not part["text_mask"].all()
    part["text_ids"][part["text_mask"] == 0] = 30
    torch.testing.assert_close(net(batch)["att_mim"]["prediction"], before)


def test_hidden_patches_are_told_apart_by_their_positions(tokenizer):
    """They share one mask token: only where they are makes their predictions differ."""
    outputs = mmclip.net(tokenizer, config())(mmclip.batch())["att_mim"]
    for prediction, mask in zip(outputs["prediction"], outputs["mask"], strict=True):
        hidden = prediction[mask > 0]
        assert (torch.cdist(hidden, hidden) + 9 * torch.eye(8)).min() > 1e-2


def pixels_of(mask: torch.Tensor) -> torch.Tensor:
    return mask.view(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3).bool().expand(-1, 3, -1, -1)


@pytest.mark.parametrize("stage", STAGES)
def test_only_on_the_input_stage_hidden_pixels_are_out_of_sight(tokenizer, stage, monkeypatch):
    """MMCLIP masks features, whose neighbours have seen the pixels; the other stage is there to measure that."""
    net, batch = mmclip.net(tokenizer, config(mask_stage=stage)), mmclip.batch()
    first = net(batch)
    for name, mask in zip(("paired", "unpaired"), first["att_mim"]["mask"].chunk(2), strict=True):
        batch[name]["image"][pixels_of(mask)] = 0
    scores = iter(first["shown"]["att_mim_score"].chunk(2))  # the same mask again, whatever the changed pixels score
    monkeypatch.setattr("maskedclip_composer.objectives.att_mim.text_to_image_score", lambda *_: next(scores))
    second = net(batch)["att_mim"]
    assert torch.equal(second["mask"], first["att_mim"]["mask"])
    same = torch.allclose(second["prediction"], first["att_mim"]["prediction"], atol=1e-5)
    assert same == (stage == "input")


def test_unpaired_images_do_not_reach_the_language_head(tokenizer):
    net = mmclip.net(tokenizer, config(), EntMlmConfig(dim=32, depth=1, num_heads=2))
    batch = mmclip.batch()
    found = gradients(net, batch)
    assert all(grad is None for name, grad in found.items() if name.startswith("objectives.ent_mlm."))
    before = net(batch)["ent_mlm"]["logits"]
    batch["unpaired"]["image"] = batch["unpaired"]["image"].flip(0)
    torch.testing.assert_close(net(batch)["ent_mlm"]["logits"], before)


def test_named_diseases_replace_those_of_the_pack(tokenizer):
    net = mmclip.net(tokenizer, config(diseases=["a", "b", "c"], template="{category} photograph"))
    ids = net.objectives["att_mim"].prompt_ids
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == ["a photograph", "b photograph", "c photograph"]


def test_a_prompt_is_no_longer_than_the_text_encoder_reads(tokenizer):
    net = mmclip.net(tokenizer, config(diseases=["a " * 100, "b"]))
    assert net.objectives["att_mim"].prompt_ids.shape == (2, 32)
    assert net(mmclip.batch())["att_mim"]["prediction"].isfinite().all()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("score", SCORES)
def test_under_autocast_scores_and_loss_stay_in_float32(tokenizer, score, stage):
    net = mmclip.net(tokenizer, config(score=score, mask_stage=stage))
    batch = mmclip.batch()
    exact = net(batch)["shown"]["att_mim_score"]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = net(batch)
    assert outputs["att_mim"]["prediction"].dtype == torch.float32
    scores = outputs["shown"]["att_mim_score"]
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())
    torch.testing.assert_close(scores, exact, atol=0.05, rtol=0.1)
    MaskedCLIP(net).loss(outputs, batch)["att_mim"].backward()


def test_targets_may_be_normalised(tokenizer):
    target = mmclip.net(tokenizer, config(target_norm="patch"))(mmclip.batch())["att_mim"]["target"]
    torch.testing.assert_close(target.mean(dim=-1), torch.zeros(8, 16), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, r"objectives.att_mim.depth=0 is not positive"),
        ({"dim": 30}, r"objectives.att_mim.dim=30 must be divisible"),
        ({"mask_ratio": 1.0}, r"objectives.att_mim.mask_ratio=1.0 is outside \(0, 1\)"),
        ({"explore": 1.0}, r"objectives.att_mim.explore=1.0 is outside \[0, 1\)"),
        ({"attention_temperature": 0.0}, r"objectives.att_mim.attention_temperature=0.0 is not positive"),
        ({"template": "There is."}, r"objectives.att_mim.template='There is.' must name {category} once"),
        ({"diseases": []}, r"objectives.att_mim.diseases is empty"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        config(**options)


@pytest.mark.parametrize("options", [{"mask_ratio": 0.02, "explore": 0.0}, {"mask_ratio": 0.98, "explore": 0.0}])
def test_a_mask_of_none_or_of_all_patches_is_refused(tokenizer, options):
    with pytest.raises(UserError, match=r"objectives.att_mim.mask_ratio=0.\d+ of 16 patches hides none or all"):
        config(**options).build(mmclip.parts(tokenizer))
