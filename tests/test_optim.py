import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from maskedclip_composer.errors import UserError
from maskedclip_composer.optim import OptimizerConfig, build_optimizer
from tests import tiny


def test_the_learning_rate_follows_maes_rule():
    assert OptimizerConfig().learning_rate(720) == pytest.approx(1.5e-4 * 720 / 256) == pytest.approx(4.21875e-4)
    assert OptimizerConfig().learning_rate(256) == pytest.approx(1.5e-4)
    assert OptimizerConfig(lr=1.5e-4).learning_rate(720) == 1.5e-4


def test_every_trained_parameter_is_in_one_group_and_no_other_is():
    net = tiny.net("maskedclip")
    optimizer = build_optimizer(OptimizerConfig(), net, 720)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    names = {id(p): name for name, p in net.named_parameters()}
    left_out = {name for key, name in names.items() if key not in set(grouped)}
    expected = {name for name, _ in net.named_parameters() if name.startswith("teacher.")}
    assert left_out == expected | {"branch.image_encoder.vit.pos_embed"}


def test_groups_have_the_decay_and_the_rate_of_their_kind():
    net = tiny.net("maskedclip")
    optimizer = build_optimizer(OptimizerConfig(weight_decay=0.07, text_lr_mult=0.5), net, 512)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(optimizer.param_groups) == 4
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        group = groups[id(parameter)]
        assert group["lr"] == pytest.approx(3e-4 * (0.5 if name.startswith("text_encoder.") else 1)), name
        undecayed = name.endswith(".bias") or "norm" in name.lower() or name.endswith("log_logit_scale")
        assert group["weight_decay"] == (0.0 if undecayed else 0.07), name
        assert group["betas"] == (0.9, 0.95)


def test_decay_alone_shrinks_matrices_and_leaves_vectors():
    net = tiny.net("mae")
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    build_optimizer(OptimizerConfig(lr=0.1, weight_decay=0.5), net, 1).step()
    for name, parameter in net.named_parameters():
        factor = 0.95 if parameter.ndim > 1 and parameter.requires_grad else 1
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_the_fused_update_is_the_loops_within_rounding():
    torch.manual_seed(0)
    gradients = [{n: torch.randn_like(p) for n, p in tiny.net("maskedclip").named_parameters()} for _ in range(5)]
    results = []
    for fused in (True, False):
        net = tiny.net("maskedclip").double()
        optimizer = build_optimizer(OptimizerConfig(lr=1e-2), net, 720, fused=fused)
        for step in gradients:
            for name, parameter in net.named_parameters():
                if parameter.requires_grad:
                    parameter.grad = step[name].double()
            with CallCounter() as calls:
                optimizer.step()
        assert calls.fused == (len(optimizer.param_groups) if fused else 0)
        results.append(dict(net.named_parameters()))
    first = dict(tiny.net("maskedclip").double().named_parameters())
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], atol=1e-12, rtol=1e-12, msg=name)
        assert torch.equal(value, first[name]) != value.requires_grad


class CallCounter(TorchDispatchMode):
    fused = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.fused += func.overloadpacket == torch.ops.aten._fused_adamw_
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_lr": 0.0}, r"optimizer.base_lr=0.0 is not positive"),
        ({"lr": -1.0}, r"optimizer.lr=-1.0 is not positive"),
        ({"text_lr_mult": 0.0}, r"optimizer.text_lr_mult=0.0 is not positive"),
        ({"max_grad_norm": 0.0}, r"optimizer.max_grad_norm=0.0 is not positive"),
        ({"betas": [0.9]}, r"optimizer.betas=\[0.9\] must be two numbers"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**options)


def test_a_limit_of_skipped_steps_needs_a_policy_that_skips():
    assert OptimizerConfig(non_finite="skip", max_skipped=3).max_skipped == 3
    assert OptimizerConfig(non_finite="skip", max_skipped=None).max_skipped is None
    with pytest.raises(UserError, match=r"optimizer\.max_skipped=0 skips nothing"):
        OptimizerConfig(non_finite="skip", max_skipped=0)
    with pytest.raises(UserError, match=r"optimizer\.max_skipped=3 is not read with optimizer\.non_finite=stop"):
        OptimizerConfig(max_skipped=3)
