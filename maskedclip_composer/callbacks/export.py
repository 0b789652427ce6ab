"""Writes the image encoder to a file of its own when training ends."""

from pathlib import Path

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from torch.distributed.tensor import DTensor

from maskedclip_composer.algorithms.ema_teacher import unwrap
from maskedclip_composer.export.encoder import save_encoder
from maskedclip_composer.models.vit import build_vit


def is_complete(state: State) -> bool:
    """Tell whether a run has reached its duration."""
    assert state.max_duration is not None
    return state.timestamp.get(state.max_duration.unit) >= state.max_duration


class EncoderExport(Callback):
    """Export E_I alone, under timm's names: bridge, decoders, text tower and heads are discarded, as in the paper.

    Args:
        path: The `.safetensors` file to write.
        name: timm's name of the architecture.
    """

    def __init__(self, path: Path, name: str):
        self.path = path
        self.name = name

    def after_load(self, state: State, logger: Logger) -> None:
        """Export also where a run was stopped between its last checkpoint and the end."""
        # The first rank decides for all: gathering is collective, and other nodes may not see its disk.
        if is_complete(state) and not dist.all_gather_object(self.path.exists())[0]:
            self.fit_end(state, logger)

    def fit_end(self, state: State, logger: Logger) -> None:
        """Gather the encoder from all ranks and write it on the first."""
        encoder = unwrap(state.model).net.branch.image_encoder
        # Every rank takes part in gathering shards; only the first needs the result.
        full = {
            key: value.full_tensor() if isinstance(value, DTensor) else value
            for key, value in encoder.vit.state_dict().items()
        }
        if dist.get_global_rank() != 0:
            return
        image_size = encoder.grid[0] * encoder.patch_size
        vit = build_vit(self.name, image_size, encoder.patch_size, len(encoder.vit.blocks))
        vit.load_state_dict(full)
        save_encoder(
            self.path,
            vit,
            name=self.name,
            image_size=image_size,
            patch_size=encoder.patch_size,
            mean=encoder.image_mean,
            std=encoder.image_std,
            extra={"run_name": state.run_name, "trained": str(state.timestamp.batch)},
        )
