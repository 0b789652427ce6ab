"""The weights of the whole network in a run's checkpoint, however training stored them."""

from pathlib import Path

from torch import Tensor

from maskedclip_composer.export.checkpoint import read_checkpoint
from maskedclip_composer.export.sharded import read_sharded_model

_IF_REFUSED = "Use the encoder.safetensors of the run instead."


def read_model_weights(path: Path) -> dict[str, Tensor]:
    """Read the model of a `.pt` file of Composer, or of the folder of shards that `parallelism=fsdp` writes.

    Args:
        path: The checkpoint, or the link to it.

    Returns:
        Under the names of `MaskedCLIP`; nothing where the file holds no model.

    Raises:
        RefusedError: It holds what could run code.
        UserError: It is absent or damaged.
    """
    if path.is_dir():
        return read_sharded_model(path, if_refused=_IF_REFUSED)
    return read_checkpoint(path, if_refused=_IF_REFUSED).get("state", {}).get("model", {})
