"""Counts against arithmetic, and of tensors without values against those of real ones."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from maskedclip_composer.costs.counts import PeakBytes, SavedBytes, count_calls, count_flops, saved_bytes


def attend(kernel: SDPBackend) -> None:
    query, key, value = (torch.rand(2, 3, length, 8, requires_grad=True) for length in (5, 7, 7))
    with sdpa_kernel(kernel):
        F.scaled_dot_product_attention(query, key, value).sum().backward()


def test_fused_attention_counts_as_the_plain_formula_does():
    fused, plain = (count_flops(lambda k=kernel: attend(k)) for kernel in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH))
    assert fused == plain == 3 * 2 * (2 * 2 * 3 * 5 * 7 * 8)  # forward once, backward twice; two products


def test_a_linear_layer_and_its_backward_pass():
    layer, x = torch.nn.Linear(6, 10), torch.rand(4, 6)
    assert count_flops(lambda: layer(x)) == 2 * 4 * 6 * 10
    assert count_flops(lambda: layer(x).sum().backward()) == 2 * 2 * 4 * 6 * 10  # no gradient of x
    assert count_calls(lambda: x + x) == 1


def test_saved_bytes_skip_what_is_known_and_count_a_storage_once():
    weight, x = torch.rand(16, 16, requires_grad=True), torch.rand(8, 16)

    def forward() -> Tensor:
        hidden = x @ weight  # keeps x
        return (hidden.exp() * hidden.view(-1, 16)).sum()  # keeps exp's result twice, hidden and a view of it

    assert saved_bytes(forward, [weight, x]) == 2 * 8 * 16 * 4
    assert saved_bytes(forward, [weight]) == 3 * 8 * 16 * 4


def test_peak_is_what_is_alive_at_once():
    x = torch.rand(1000)
    with PeakBytes([x]) as memory:
        for _ in range(3):
            y = x + 1
            y = y * 2  # two are alive here, the first is freed then
        y.mul_(3)
    assert memory.peak == 2 * 4000


def test_peak_of_a_checkpointed_chain_is_smaller_and_its_saved_bytes_are_the_inputs():
    layers = [torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.GELU()) for _ in range(6)]
    known = [parameter for layer in layers for parameter in layer.parameters()]
    for parameter in known:
        parameter.grad = torch.zeros_like(parameter)
    x = torch.rand(512, 64)

    def run(recompute: bool) -> tuple[int, int]:
        saved = SavedBytes([x, *known])
        with PeakBytes([x, *known]) as memory:
            with saved.watch():
                y = x.clone()
                for layer in layers:
                    y = checkpoint(layer, y, use_reentrant=False) if recompute else layer(y)
                loss = y.sum()  # pyright: ignore[reportOptionalMemberAccess]
            loss.backward()
        return saved.total, memory.peak

    rows = 512 * 64 * 4
    plain, checkpointed = run(False), run(True)
    assert plain[0] == 6 * 3 * rows
    assert checkpointed[0] == 6 * rows
    assert checkpointed[0] < checkpointed[1] < plain[1]


@pytest.mark.parametrize("shape", [(4, 8), (3, 5)])
def test_tensors_without_values_count_the_same(shape: tuple[int, int]):
    def step() -> tuple[int, int, int]:
        layer = torch.nn.Linear(shape[1], 7)
        x = torch.zeros(shape)
        saved = SavedBytes([x, *layer.parameters()])
        with PeakBytes([x, *layer.parameters()]) as memory:

            def run() -> None:
                with saved.watch():
                    loss = F.gelu(layer(x)).sum()
                loss.backward()

            flops = count_flops(run)
        return flops, saved.total, memory.peak

    real = step()
    with FakeTensorMode():
        assert step() == real
