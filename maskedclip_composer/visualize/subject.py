"""Open the model whose pictures are drawn, with the decoder that its use leaves behind."""

from pathlib import Path
from typing import Any

import torch

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.export.checkpoint import read_checkpoint
from maskedclip_composer.export.encoder import NEWEST
from maskedclip_composer.export.exact import load_exactly
from maskedclip_composer.objectives.base import Parts
from maskedclip_composer.objectives.mim import MaskedImageModelling
from maskedclip_composer.use.load import load
from maskedclip_composer.use.transform import PhotographTransform
from maskedclip_composer.visualize.drawn import Subject

_MIM = "net.objectives.mim."


def open_subject(source: str, device: str | torch.device) -> tuple[Subject, PhotographTransform]:
    """Load a model for its pictures, and the transform of its photographs.

    Args:
        source: As in `use.load.load`. A run folder or a checkpoint in one brings its pixel decoder, others bring none.
        device: Where the model goes.

    Raises:
        UserError: As in `load`, or the decoder's weights are not those that the run's config describes.
    """
    loaded = load(source, device=device)
    path = Path(source)
    folder, checkpoint = run_of(path), checkpoint_of(path)
    if folder is None or checkpoint is None:
        home = path.parent if path.is_file() else path
        name = home.absolute().name
        return Subject(name=name, step=None, model=loaded.model, tokenizer=loaded.tokenizer), loaded.transform
    config = load_config(TrainConfig, str(folder / "config.yaml"), [])
    state = read_checkpoint(checkpoint).get("state", {})
    mim = None
    if config.objectives.mim is not None:
        mim = config.objectives.mim.build(Parts(image_encoder=loaded.model.branch.image_encoder))
        assert isinstance(mim, MaskedImageModelling)
        weights = {key.removeprefix(_MIM): value for key, value in state["model"].items() if key.startswith(_MIM)}
        load_exactly(mim, weights, source=str(checkpoint), architecture="the pixel decoder that its config describes")
        mim.to(device).eval().requires_grad_(False)
    subject = Subject(
        name=config.run_name or folder.absolute().name,
        step=_steps(state),
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        mim=mim,
        mask_ratio=config.mask_ratio,
    )
    return subject, loaded.transform


def run_of(source: Path) -> Path | None:
    """Return the run folder that a source is of, if it is of one."""
    candidates = {".pt": [source.parent.parent], ".safetensors": [source.parent]}.get(source.suffix, [source])
    return next((folder for folder in candidates if (folder / "config.yaml").is_file()), None)


def checkpoint_of(source: Path) -> Path | None:
    """Return the checkpoint that a source stands for; None for an encoder or an exported folder."""
    if source.suffix == ".pt":
        return source
    newest = source / NEWEST
    return newest if newest.is_file() else None


def _steps(state: dict[str, Any]) -> int | None:
    step = state.get("timestamp", {}).get("Timestamp", {}).get("batch")
    return step if isinstance(step, int) else None
