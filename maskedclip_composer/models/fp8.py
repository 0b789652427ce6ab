"""Linear layers in 8-bit floats, by torchao: faster on Hopper and Ada GPUs, and not exact."""

import importlib.util
from typing import Literal

import torch
from torch import nn

from maskedclip_composer.errors import UserError
from maskedclip_composer.models.block import TokenBlock
from maskedclip_composer.models.pretrain import PretrainNet

_MULTIPLE = 16  # of both widths of a matrix that the 8-bit kernels take


def use_fp8(net: PretrainNet, fp8: Literal["none", "teacher", "linears"], device: torch.device) -> None:
    """Let the linear layers of transformer blocks multiply in float8, scaled per tensor in each step.

    Weights stay float32 parameters under their names, so that optimiser, teacher update and checkpoints see no
    difference. On a CPU the rounding is emulated, which is slow and shows what it does to the losses.

    Args:
        net: The network, before it is wrapped for several ranks.
        fp8: teacher converts the teacher's layers, linears those of the student's image side and of mim's and mfd's
            decoders too. Decoders with cross-attention stay as they are.
        device: Where it is going to run.

    Raises:
        UserError: torchao is not installed, the GPU has no 8-bit floats, or no layer can be converted.
    """
    if fp8 == "none":
        return
    if importlib.util.find_spec("torchao") is None:
        raise UserError(f"compute.fp8={fp8} needs torchao.\nInstall the extra: pip install 'maskedclip-composer[fp8]'.")
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        name = torch.cuda.get_device_name(device)
        raise UserError(f"compute.fp8={fp8}: {name} has no 8-bit floats (Ada and Hopper have).\nSet compute.fp8=none.")
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    # Rows of a batch are seldom a multiple of 16; torchao fills them up for the weights' gradients.
    config = Float8LinearConfig(emulate=device.type == "cpu", pad_inner_dim=True)
    converted = 0
    towers = [net.teacher] if fp8 == "teacher" else [net.teacher, net.branch, net.objectives]
    for tower in towers:
        for block in tower.modules() if tower is not None else ():
            if isinstance(block, TokenBlock):
                convert_to_float8_training(block, config=config, module_filter_fn=_has_whole_tiles)
                converted += any(_has_whole_tiles(module, "") for module in block.modules())
    if not converted:
        raise UserError(
            f"compute.fp8={fp8}: no linear layer has widths that are multiples of {_MULTIPLE}.\nSet compute.fp8=none."
        )


def _has_whole_tiles(module: nn.Module, name: str) -> bool:
    return (
        isinstance(module, nn.Linear) and module.in_features % _MULTIPLE == 0 and module.out_features % _MULTIPLE == 0
    )
