"""Stand-ins for Composer's names, for a machine that has torch, timm and transformers but not Composer.

Import it before anything of maskedclip_composer. The network itself needs nothing of Composer: `models/pretrain.py`
derives the ComposerModel from it, and `algorithms/ema_teacher.py` an Algorithm. What such a machine needs besides are
the small pure packages jaxtyping and safetensors, and a checkout of this project.
"""

import importlib.util
import sys
from types import ModuleType
from typing import Any

from torch import nn


class _StandIn(ModuleType):
    """A module in which every name is an empty class."""

    def __init__(self, name: str):
        super().__init__(name)
        self.__path__ = []  # what makes it a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (nn.Module,), {})


if importlib.util.find_spec("composer") is None:
    for module in ("composer", "composer.core", "composer.loggers", "composer.models", "composer.utils"):
        sys.modules[module] = _StandIn(module)
