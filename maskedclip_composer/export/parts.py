"""The parts of a pre-training network by name, as a run's checkpoint holds them and as another run starts from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

_PREFIXES = {"bridge": "net.branch.bridge.", "text_encoder": "net.text_encoder.", "teacher": "net.teacher."}
_OBJECTIVES = "net.objectives."


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of somebody's network.

    Attributes:
        weights: Under the names that the part has here.
        settings: What a config says of it and shapes do not show as clearly, such as the number of heads.
    """

    weights: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)


def parts_of_network(net: Any) -> dict[str, nn.Module]:
    """Return the modules of a `PretrainNet` beside its image encoder; an empty bridge is none."""
    found = {"bridge": net.branch.bridge, "text_encoder": net.text_encoder, "teacher": net.teacher}
    found |= dict(net.objectives.items())
    return {name: module for name, module in found.items() if module is not None and module.state_dict()}


def parts_of_checkpoint(model: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Divide the weights of a checkpoint's model likewise."""
    objectives = {key.split(".")[2] for key in model if key.startswith(_OBJECTIVES)}
    prefixes = _PREFIXES | {name: f"{_OBJECTIVES}{name}." for name in sorted(objectives)}
    parts = {
        name: {key.removeprefix(prefix): value for key, value in model.items() if key.startswith(prefix)}
        for name, prefix in prefixes.items()
    }
    return {name: weights for name, weights in parts.items() if weights}
