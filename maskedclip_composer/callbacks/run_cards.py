"""Writes the model card and the data card of a run when training ends."""

import json
import logging
from pathlib import Path

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from torch import nn

from maskedclip_composer.algorithms.ema_teacher import unwrap
from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.callbacks.export import is_complete
from maskedclip_composer.callbacks.tracking import FaultTolerantMLFlowLogger
from maskedclip_composer.cards.run_files import PARAMETERS
from maskedclip_composer.cards.write import MODEL_CARD, write_cards
from maskedclip_composer.models.pretrain import PretrainNet

log = logging.getLogger(__name__)


class RunCards(Callback):
    """Count the parameters, write both cards from the run's files, and send them to MLflow. Only rank 0 writes.

    After `EncoderExport`, whose file the model card describes. A card that cannot be written costs a warning.

    Args:
        run_folder: The run's folder.
        tracker: Takes the files; None when MLflow is off.
    """

    def __init__(self, run_folder: Path, tracker: FaultTolerantMLFlowLogger | None):
        self.run_folder = run_folder
        self._tracker = tracker

    def after_load(self, state: State, logger: Logger) -> None:
        """Write them also where a run was stopped between its last checkpoint and the end."""
        if is_complete(state) and not (self.run_folder / MODEL_CARD).exists():
            self.fit_end(state, logger)

    def fit_end(self, state: State, logger: Logger) -> None:
        """Write and send."""
        if dist.get_global_rank() != 0:
            return
        try:
            counts = count_parameters(unwrap(state.model).net)
            write_whole(self.run_folder / PARAMETERS, json.dumps(counts, indent=2) + "\n")
            written = write_cards(self.run_folder)
        except Exception as error:  # whatever it is, the weights are worth more
            log.warning(f"{self.run_folder / MODEL_CARD} was not written: {type(error).__name__}: {error}")
            return
        for path in written:
            if self._tracker is not None:
                self._tracker.log_artifact(path)


def count_parameters(net: PretrainNet) -> dict[str, int]:
    """Count the parameters of each part of a network; under FSDP, too, those of the whole."""
    branch = net.branch
    parts: dict[str, nn.Module | None] = {
        "image encoder": branch.image_encoder,
        "bridge": branch.bridge,
        "text encoder": net.text_encoder,
        **{f"heads of {name}": objective for name, objective in net.objectives.items()},
    }
    return {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in parts.items()
        if part is not None
    }
