import importlib.util

import pytest
import torch
from torchao.float8.float8_linear import Float8Linear

from maskedclip_composer.errors import UserError
from maskedclip_composer.models.fp8 import use_fp8
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from tests import tiny

CPU = torch.device("cpu")


def converted(net: PretrainNet) -> set[str]:
    return {name.split(".")[0] for name, module in net.named_modules() if isinstance(module, Float8Linear)}


@pytest.mark.parametrize(
    ("fp8", "parts"), [("none", set()), ("teacher", {"teacher"}), ("linears", {"teacher", "branch", "objectives"})]
)
def test_what_is_converted(fp8, parts):
    net = tiny.net("maskedclip")
    names, parameters = list(net.state_dict()), list(net.parameters())
    use_fp8(net, fp8, CPU)
    assert converted(net) == parts
    assert list(net.state_dict()) == names
    assert all(one is other for one, other in zip(net.parameters(), parameters, strict=True))


def losses_of(fp8, steps: int) -> torch.Tensor:
    """Return the total loss of each step; the batches are few, so that it falls."""
    net = tiny.net("maskedclip")
    use_fp8(net, fp8, CPU)
    model, optimizer = MaskedCLIP(net), torch.optim.AdamW(net.parameters(), lr=1e-3)
    totals = []
    for number in range(steps):
        batch = tiny.batch(6, 6, seed=number % 2)
        loss = model.loss(model(batch), batch)["total"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(loss.detach())
    return torch.stack(totals)


@pytest.mark.parametrize("fp8", ["teacher", "linears"])
def test_the_losses_drift_little_and_fall_alike(fp8):
    exact, rounded = losses_of("none", 40), losses_of(fp8, 40)
    assert not torch.equal(exact, rounded), "nothing was rounded"
    assert ((exact - rounded).abs() / exact.abs()).max() < 0.05
    fallen = exact[:4].mean() - exact[-4:].mean()
    assert fallen > 0.1 * exact[:4].mean()
    assert rounded[:4].mean() - rounded[-4:].mean() > 0.9 * fallen


def test_a_recipe_without_a_layer_to_convert_is_refused():
    with pytest.raises(UserError, match=r"compute.fp8=teacher: no linear layer"):
        use_fp8(tiny.net("mae"), "teacher", CPU)


def test_torchao_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"(?s)needs torchao.*maskedclip-composer\[fp8\]"):
        use_fp8(tiny.net("maskedclip"), "linears", CPU)


def test_a_gpu_without_8_bit_floats_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    with pytest.raises(UserError, match="A100 has no 8-bit floats"):
        use_fp8(tiny.net("maskedclip"), "linears", torch.device("cuda"))
