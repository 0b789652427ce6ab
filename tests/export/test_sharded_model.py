"""Weights that lie in several shards are put together."""

from pathlib import Path

import pytest
import torch

from maskedclip_composer.errors import UserError
from maskedclip_composer.export import sharded_model
from maskedclip_composer.export.sharded_model import read_sharded_model

WEIGHT = torch.arange(15.0).reshape(5, 3)


@pytest.fixture
def shards(monkeypatch) -> dict[str, object]:
    """Rows on three ranks, as FSDP2 deals them: the last has fewer, and one tensor is whole."""
    found: dict[str, object] = {
        "state.model.net.weight[0, 0]": WEIGHT[:2],
        "state.model.net.weight[4, 0]": WEIGHT[4:],
        "state.model.net.weight[2, 0]": WEIGHT[2:4],
        "state.model.net.scale[]": torch.tensor(3.0),
        "state.model.net.bias[0]": torch.ones(3, dtype=torch.bfloat16),
        "state.model.note": "no tensor",
    }
    monkeypatch.setattr(sharded_model, "read_sharded", lambda folder, **options: found)
    return found


def test_shards_are_joined(shards):
    found = read_sharded_model(Path("run"))
    assert found.keys() == {"net.weight", "net.scale", "net.bias"}
    assert torch.equal(found["net.weight"], WEIGHT)
    assert torch.equal(found["net.scale"], torch.tensor(3.0))
    assert found["net.bias"].dtype == torch.bfloat16


@pytest.mark.parametrize("lost", ["state.model.net.weight[0, 0]", "state.model.net.weight[2, 0]"])
def test_a_shard_that_is_missing_is_named(shards, lost):
    del shards[lost]
    with pytest.raises(UserError, match=r"lacks a shard of net\.weight"):
        read_sharded_model(Path("run"))
