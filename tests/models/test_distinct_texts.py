"""Texts of a batch encoded once each, or once a pair: what the model makes of both."""

import pytest
import torch

from maskedclip_composer.data.text import DrawnText, collate_texts
from maskedclip_composer.models.pretrain import MaskedCLIP
from maskedclip_composer.types import Batch
from tests import tiny

MAX_TOKENS = 12


def collated(batch: Batch, *, distinct: bool) -> Batch:
    """The same batch with its texts stacked anew."""
    part = batch["paired"]

    def drawn(pair: int) -> DrawnText:
        row = int(part["text_index"][pair])
        length = int(part["text_mask"][row].sum())
        units = {unit: part[f"text_{unit}"][row, :length].numpy() for unit in ("word", "entity", "sentence")}
        noise = torch.cat([part["text_noise"][pair], torch.ones(MAX_TOKENS)])[:MAX_TOKENS].numpy()
        ids = part["text_ids"][row, :length].numpy()
        return DrawnText(f"text {row}", ids, int(part["label"][pair]), units, noise)

    pairs = range(len(part["label"]))
    texts = collate_texts([drawn(pair) for pair in pairs], max_tokens=MAX_TOKENS, pad_id=0, distinct=distinct)
    return {**batch, "paired": {**part, **texts}}


@pytest.mark.parametrize(
    ("recipe", "dtype", "loss_tolerance", "tolerance"),
    [
        ("maskedclip", torch.float64, 1e-12, 1e-10),
        ("mmclip", torch.float64, 1e-12, 1e-10),
        ("mlip", torch.float32, 1e-6, 1e-5),  # it aligns patches with sentences in float32, whatever it is given
    ],
)
def test_losses_and_gradients_are_the_same_whether_texts_are_encoded_once_or_once_a_pair(
    recipe, dtype, loss_tolerance, tolerance
):
    found = []
    for distinct in (True, False):
        net = tiny.net(recipe).to(dtype)
        batch = collated(tiny.batch(9, 4), distinct=distinct)
        assert batch["paired"]["text_ids"].shape == ((6, 8) if distinct else (9, MAX_TOKENS))
        model = MaskedCLIP(net)
        losses = model.loss(model(batch), batch)
        losses["total"].backward()
        found.append((losses, {name: parameter.grad for name, parameter in net.named_parameters()}))
    (losses, gradients), (others, other_gradients) = found
    for name, loss in losses.items():
        torch.testing.assert_close(others[name], loss, atol=loss_tolerance, rtol=loss_tolerance, msg=name)
    for name, gradient in gradients.items():
        assert (gradient is None) == (other_gradients[name] is None)
        if gradient is not None:
            torch.testing.assert_close(other_gradients[name], gradient, atol=tolerance, rtol=tolerance, msg=name)
