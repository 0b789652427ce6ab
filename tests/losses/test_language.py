import math

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from maskedclip_composer.losses.language import masked_token_ce


def case(masked: int = 4, vocabulary: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = torch.randn(masked, vocabulary, dtype=torch.float64) * 3
    return logits, torch.randint(vocabulary, (masked,)), torch.tensor(float(masked), dtype=torch.float64)


def printed_equation(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """-1/|S| sum of log p(t_k)."""
    total = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        total -= math.log(math.exp(row[target]) / sum(math.exp(value) for value in row))
    return total / len(targets)


def test_equals_the_printed_equation():
    logits, targets, count = case()
    assert masked_token_ce(logits, targets, count).item() == pytest.approx(printed_equation(logits, targets))


def test_it_is_the_loss_of_transformers_masked_language_model():
    """Which takes all tokens, and -100 where nothing is to be predicted."""
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = BertForMaskedLM(config).eval()
    ids = torch.randint(20, (3, 7))
    hidden = torch.rand(3, 7) < 0.5
    expected = model(input_ids=ids, labels=ids.masked_fill(~hidden, -100))
    loss = masked_token_ce(expected.logits[hidden], ids[hidden], hidden.sum().float())
    torch.testing.assert_close(loss, expected.loss)


def test_gradients_are_those_of_finite_differences():
    logits, targets, count = case()
    assert torch.autograd.gradcheck(lambda x: masked_token_ce(x, targets, count), (logits.requires_grad_(),))


def test_with_nothing_removed_loss_and_gradients_are_zero():
    weight = torch.randn(5, 6, requires_grad=True)
    logits = torch.randn(3, 5)[torch.zeros(3, dtype=torch.bool)] @ weight
    loss = masked_token_ce(logits, torch.zeros(0, dtype=torch.int64), torch.tensor(1.0))
    loss.backward()
    assert loss.item() == 0
    assert weight.grad is not None
    assert not weight.grad.any()


def test_shares_of_a_batch_average_to_the_whole_however_uneven_they_are():
    """What DDP's mean over ranks relies on: each share is divided by the mean of their numbers."""
    logits, targets, count = case(masked=7)
    parts = [slice(0, 1), slice(1, 7), slice(7, 7)]
    mean = torch.tensor(7 / 3, dtype=torch.float64)
    shares = torch.stack([masked_token_ce(logits[part], targets[part], mean) for part in parts])
    torch.testing.assert_close(shares.mean(), masked_token_ce(logits, targets, count))


def test_half_precision_is_computed_in_float32():
    logits, targets, _ = case()
    loss = masked_token_ce(logits.bfloat16(), targets, torch.tensor(4.0))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, masked_token_ce(logits.bfloat16().float(), targets, torch.tensor(4.0)))
