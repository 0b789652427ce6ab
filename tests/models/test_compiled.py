"""Compiled blocks compute what plain ones do; the graphs run uncompiled here, so that it takes seconds."""

import os

import pytest
import torch
from torch import Tensor

from maskedclip_composer.compute import ActivationConfig, ComputeConfig
from maskedclip_composer.costs.counts import saved_bytes
from maskedclip_composer.errors import UserError
from maskedclip_composer.models import compiled
from maskedclip_composer.models.block import TokenBlock
from maskedclip_composer.models.compiled import compile_blocks
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from tests import tiny

CPU = torch.device("cpu")
BACKEND = "aot_eager_decomp_partition"  # divides forward and backward as the real one does, without code generation
BLOCKS = ComputeConfig(compile="blocks")


def compiled_net(compute: ComputeConfig) -> PretrainNet:
    net = tiny.net("maskedclip", compute=compute)
    assert compile_blocks(net, compute, CPU, backend=BACKEND)
    return net


def step(net: PretrainNet, batch) -> dict[str, Tensor]:
    losses = MaskedCLIP(net).loss(net(batch), batch)
    losses["total"].backward()
    return losses | {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.slow
def test_losses_and_gradients_are_those_of_plain_blocks(batch):
    plain = step(tiny.net("maskedclip"), batch)
    for compute in (BLOCKS, ComputeConfig(compile="blocks", activation=ActivationConfig(image="budget:0.3"))):
        for name, values in step(compiled_net(compute), batch).items():
            torch.testing.assert_close(values, plain[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_a_smaller_budget_keeps_less(batch):
    def kept(share: str) -> int:
        budgets = ActivationConfig(image=share, decoders=share)
        net = compiled_net(ComputeConfig(compile="blocks", activation=budgets))
        known = [*net.parameters(), *net.buffers()]
        return saved_bytes(lambda: MaskedCLIP(net).loss(net(batch), batch)["total"], known)

    assert kept("budget:0.1") < 0.8 * kept("none")


def test_every_block_of_the_image_side_and_no_parameters_name_changes():
    net = tiny.net("maskedclip")
    names = list(net.state_dict())
    assert compile_blocks(net, BLOCKS, CPU, backend=BACKEND)
    blocks = [module for module in net.modules() if isinstance(module, TokenBlock)]
    assert blocks
    assert all("forward" in vars(block) for block in blocks)
    assert list(net.state_dict()) == names


@pytest.mark.parametrize("compile", ["none", "auto"])
def test_nothing_is_compiled_on_a_cpu_unless_asked_for(compile):
    net = tiny.net("maskedclip")
    assert not compile_blocks(net, ComputeConfig(compile=compile), CPU)
    assert not any("forward" in vars(module) for module in net.modules())


def test_a_compiler_that_does_not_work(monkeypatch):
    monkeypatch.setattr(compiled, "_failure", lambda *_: "InductorError: no C++ compiler")
    with pytest.raises(UserError, match=r"compute.compile=blocks: torch.compile does not work here \(InductorError"):
        compile_blocks(tiny.net("maskedclip"), BLOCKS, CPU)
    net = tiny.net("maskedclip")
    with pytest.warns(UserWarning, match="goes on without torch.compile.*no C"):
        assert not compile_blocks(net, ComputeConfig(), torch.device("cuda"))
    assert not any("forward" in vars(module) for module in net.modules())


def test_why_a_block_cannot_be_compiled_is_said():
    assert compiled._failure(CPU, BACKEND, "sdpa") == ""
    assert "no_such_backend" in compiled._failure(CPU, "no_such_backend", "sdpa")


def test_compiled_code_is_kept_where_the_environment_says_else_with_the_runs(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    compile_blocks(tiny.net("mae"), BLOCKS, CPU, cache=tmp_path / "code", backend=BACKEND)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "code")
    compile_blocks(tiny.net("mae"), BLOCKS, CPU, cache=tmp_path / "other", backend=BACKEND)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "code")
