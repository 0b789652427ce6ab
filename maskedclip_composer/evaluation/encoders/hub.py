"""Vision models of transformers from a folder, or by their name at the Hugging Face hub."""

import inspect
import math
import pickle
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers.utils.hub import cached_file

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.hugging_face import HuggingFaceEncoder
from maskedclip_composer.export.exact import listed
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD

# What a file may hold beyond the network: heads of a task, CLIP's projection, decoders of masked pre-training.
DROPPED = ("classifier.", "head.", "visual_projection.", "decoder.")
# What a file may lack: the layer on the class token, which has no part in the features.
UNUSED = ("pooler.",)


def load_hugging_face(source: str, image_size: int | None = None) -> HuggingFaceEncoder:
    """Load a vision model, or the vision tower of a model of images and text, with transformers.

    Code that a repository brings along is not run, and pickled weights are read as weights only.

    Args:
        source: What follows `hf:`: a folder, or a name at the hub.
        image_size: Side of the input in pixels. None takes the preprocessor's, else the model's; another one than
            the model's makes transformers interpolate the positions.

    Raises:
        UserError: The model is absent or no vision model, or its weights are not exactly those of its configuration.
    """
    model = _model(source)
    module = getattr(model, "vision_model", model)
    mean, std, preferred, description = _preprocessing(source)
    own = _side(getattr(module.config, "image_size", None))
    size = image_size or preferred or own or 224
    options = {}
    if own is not None and size != own:
        if "interpolate_pos_encoding" in inspect.signature(module.forward).parameters:
            options = {"interpolate_pos_encoding": True}
        description += f", positions interpolated by transformers from {own} to {size} pixels"
    return HuggingFaceEncoder(
        module=module,
        num_prefix_tokens=_count_prefix_tokens(source, module, size, options),
        options=options,
        image_size=size,
        mean=mean,
        std=std,
        description=f"{source}, {type(module).__name__} of transformers{description}",
    )


def _model(source: str) -> Any:
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if hasattr(config, "mask_ratio"):
            config.mask_ratio = 0.0  # ViTMAEModel would encode a random quarter of the patches
        model, found = AutoModel.from_pretrained(
            source,
            config=config,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are named; transformers' own error leaves out which they are
            trust_remote_code=False,
        )
    except (OSError, ValueError, RuntimeError, LookupError, pickle.UnpicklingError, SafetensorError) as error:
        raise UserError(
            f"hf:{source}: transformers could not load it: {error}\n"
            "Give a folder with config.json and the weights, or a name at the hub, and check the network."
        ) from error
    problems = [f"missing: {key}" for key in found["missing_keys"] if not key.startswith(UNUSED)]
    problems += [f"unexpected: {key}" for key in found["unexpected_keys"] if not key.startswith(DROPPED)]
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    problems += [f"of another shape than {shapes.get(key)}: {key}" for key in found["mismatched_keys"]]
    problems += found["error_msgs"]
    if problems:
        raise UserError(f"The weights in {source} are not those of {type(model).__name__}:\n{listed(problems)}")
    pooler = getattr(model, "pooler", None)
    if pooler is not None and list(pooler.parameters()):
        model.pooler = None  # it has no part in the features, and a file without it would leave it random
    return model


def _preprocessing(source: str) -> tuple[tuple[float, ...], tuple[float, ...], int | None, str]:
    """Return mean, deviation, image size where it is stated, and what is to be said about them."""
    try:
        if cached_file(source, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False) is None:
            return IMAGE_MEAN, IMAGE_STD, None, ", which states no mean and deviation: ImageNet's are used"
        processor: Any = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, LookupError) as error:
        raise UserError(
            f"hf:{source}: transformers could not read its preprocessor_config.json: {error}\n"
            "Mend the file, or remove it for ImageNet's mean and deviation."
        ) from error
    factor = getattr(processor, "rescale_factor", 1 / 255)
    if not math.isclose(factor, 1 / 255, rel_tol=1e-3):
        raise UserError(f"hf:{source} wants images scaled by {factor}; only 1/255, that is units of 0 to 1, is known.")
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    size = _side(crop) or _side(getattr(processor, "size", None))
    if not getattr(processor, "do_normalize", True):
        return (0.0,) * 3, (1.0,) * 3, size, ""
    return tuple(processor.image_mean), tuple(processor.image_std), size, ""


def _side(size: Any) -> int | None:
    """Return the side of what is a number, a pair of them, or a mapping with names of sides."""
    if isinstance(size, list | tuple):
        return int(size[0])
    if isinstance(size, int) or size is None:
        return size
    return next((int(size[key]) for key in ("height", "shortest_edge") if size.get(key)), None)


def _count_prefix_tokens(source: str, module: nn.Module, size: int, options: dict[str, Any]) -> int:
    """Return how many tokens come before the patches, found by encoding an image."""
    try:
        with torch.no_grad():
            hidden = module.eval()(pixel_values=torch.zeros(1, 3, size, size), **options).last_hidden_state
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"hf:{source} is no vision model, or does not take images of {size} x {size}: {error}\n"
            "Leave image_size out for its own."
        ) from error
    if hidden.ndim == 4:
        return 0
    count = hidden.shape[1]
    patch = _side(getattr(module.config, "patch_size", None))
    patches = (size // patch) ** 2 if patch else 0
    if 0 < patches <= count:
        return count - patches
    if math.isqrt(count) ** 2 == count:  # Swin and others merge patches from stage to stage, and have no other tokens
        return 0
    raise UserError(f"hf:{source} gives {count} tokens, and which of them are patches cannot be told.")
