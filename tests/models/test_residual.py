import pytest
import torch
from torch import Tensor

from maskedclip_composer.costs.counts import saved_bytes
from maskedclip_composer.models.block import TokenBlock
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.residual import use_residual
from tests import tiny


def net_with(residual) -> PretrainNet:
    net = tiny.net("maskedclip")
    use_residual(net, residual)
    return net


def losses(net: PretrainNet, batch, *, autocast: bool = True) -> dict[str, Tensor]:
    model = MaskedCLIP(net)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        outputs = model(batch)
    return model.loss(outputs, batch)


@pytest.mark.parametrize(("residual", "dtype"), [("float32", torch.float32), ("autocast", torch.bfloat16)])
def test_the_type_between_all_blocks(residual, dtype, batch):
    net, seen = net_with(residual), set()
    for name, module in net.named_modules():
        if isinstance(module, TokenBlock):
            module.register_forward_hook(lambda _, inputs, output, name=name: seen.add((name, output.dtype)))
    losses(net, batch)
    blocks = {name for name, module in net.named_modules() if isinstance(module, TokenBlock)}
    assert seen == {(name, dtype) for name in blocks}


def test_losses_differ_by_rounding_and_every_parameter_learns(batch):
    wide, narrow = losses(net_with("float32"), batch), (net := net_with("autocast"), losses(net, batch))[1]
    for name, loss in narrow.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, wide[name], atol=2e-2, rtol=2e-2)
    assert not torch.equal(narrow["total"], wide["total"])
    narrow["total"].backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_without_autocast_nothing_changes(batch):
    wide, narrow = (losses(net_with(residual), batch, autocast=False) for residual in ("float32", "autocast"))
    for name, loss in narrow.items():
        torch.testing.assert_close(loss, wide[name], atol=0, rtol=0)


def test_less_is_kept_for_the_backward_pass(batch):
    kept = {}
    for residual in ("float32", "autocast"):
        net = net_with(residual)
        known = [*net.parameters(), *net.buffers()]
        kept[residual] = saved_bytes(lambda net=net: losses(net, batch)["total"], known)
    assert kept["autocast"] < 0.95 * kept["float32"]
