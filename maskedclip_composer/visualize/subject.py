"""Open the model whose pictures are drawn, with the decoder that its use leaves behind."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.export.checkpoint import read_checkpoint
from maskedclip_composer.export.encoder import NEWEST
from maskedclip_composer.export.exact import load_exactly
from maskedclip_composer.export.sharded import LAYOUT, read_sharded, read_sharded_model
from maskedclip_composer.objectives.base import Parts
from maskedclip_composer.objectives.mim import MaskedImageModelling
from maskedclip_composer.use.load import load
from maskedclip_composer.use.transform import PhotographTransform
from maskedclip_composer.visualize.drawn import Subject

_MIM = "net.objectives.mim."
_IF_REFUSED = "Use the encoder.safetensors of the run instead."


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
    whole, step = _read(checkpoint)
    mim = None
    if config.objectives.mim is not None:
        mim = config.objectives.mim.build(Parts(image_encoder=loaded.model.branch.image_encoder))
        assert isinstance(mim, MaskedImageModelling)
        weights = {key.removeprefix(_MIM): value for key, value in whole.items() if key.startswith(_MIM)}
        load_exactly(mim, weights, source=str(checkpoint), architecture="the pixel decoder that its config describes")
        mim.to(device).eval().requires_grad_(False)
    subject = Subject(
        name=config.run_name or folder.absolute().name,
        step=step,
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        mim=mim,
        mask_ratio=config.mask_ratio,
    )
    return subject, loaded.transform


def run_of(source: Path) -> Path | None:
    """Return the run folder that a source is of, if it is of one."""
    if source.suffix == ".safetensors":
        folder = source.parent
    else:
        folder = source.parent.parent if _is_checkpoint(source) else source
    return folder if (folder / "config.yaml").is_file() else None


def checkpoint_of(source: Path) -> Path | None:
    """Return the checkpoint that a source stands for; None for an encoder or an exported folder."""
    if _is_checkpoint(source):
        return source
    newest = source / NEWEST
    return newest if newest.exists() else None  # a file, or a folder of shards


def _is_checkpoint(source: Path) -> bool:
    return source.suffix == ".pt" or (source / LAYOUT).is_file()


def _read(checkpoint: Path) -> tuple[Mapping[str, Tensor], int | None]:
    """Return the weights of the whole network, and the optimiser steps they had; None where it does not say."""
    if checkpoint.is_dir():
        times = read_sharded(checkpoint, if_refused=_IF_REFUSED, under="state.timestamp.")
        step = times.get("state.timestamp.Timestamp.batch")
        return read_sharded_model(checkpoint, if_refused=_IF_REFUSED), step
    state = read_checkpoint(checkpoint, if_refused=_IF_REFUSED).get("state", {})
    return state.get("model", {}), state.get("timestamp", {}).get("Timestamp", {}).get("batch")
