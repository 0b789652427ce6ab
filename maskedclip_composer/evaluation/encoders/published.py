"""timm's published weights, and files in the layouts that timm reads."""

import difflib
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.base import Encoder
from maskedclip_composer.evaluation.encoders.timm_model import TimmEncoder, remove_head
from maskedclip_composer.evaluation.encoders.vit import ViTEncoder
from maskedclip_composer.evaluation.encoders.weights import read_weights

# Where training scripts keep weights in their files; timm, too, prefers the moving average.
ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model")
# The few families that forbid timm's `pretrained_strict` because they set it to True themselves.
_STRICT_BY_THEMSELVES = ("mobilenetv3", "hardcorenas")


def load_timm(text: str, image_size: int | None = None) -> Encoder:
    """Load `NAME`, whose weights timm fetches, or `NAME@FILE`, whose weights are in a file that timm could read.

    timm's own filter for the architecture translates the names of the file; then every key must fit.

    Args:
        text: What follows `timm:`.
        image_size: Side of the input in pixels; None takes the published one.

    Raises:
        UserError: The model is unknown, the image size does not fit it, or the weights do not.
    """
    name, at, file = text.partition("@")
    facts, stochastic_depth = _examine(name, image_size)
    size = image_size or facts["input_size"][-1]
    arguments = _arguments(facts, size)
    if at:
        network, description = _from_file(name, Path(file), arguments | _strictness(name), facts)
    else:
        network, description = _from_timm(name, arguments | _strictness(name), facts)
    if facts.get("fixed_input_size") and size != facts["input_size"][-1]:
        description += f", positions resampled from {facts['input_size'][-1]} to {size} pixels"
    if getattr(network, "global_pool", None) in ("map", "prr"):
        description += ", mean patch token in place of its attention pooling"
    common = {"image_size": size, "mean": tuple(facts["mean"]), "std": tuple(facts["std"])}
    if type(network) is VisionTransformer:  # its subclasses pool and classify in ways of their own
        architecture = {"kind": "timm", "name": name, "arguments": arguments, "stochastic_depth": stochastic_depth}
        return ViTEncoder(
            module=remove_head(network),
            description=description,
            architecture=architecture | {"image_size": size},
            **common,
        )
    return TimmEncoder(
        module=remove_head(network),
        name=name,
        arguments=arguments,
        stochastic_depth=stochastic_depth,
        description=description,
        **common,
    )


def _facts(network: Any) -> dict[str, Any]:
    return network.pretrained_cfg


def _arguments(facts: dict[str, Any], size: int) -> dict[str, Any]:
    return {"img_size": size} if facts.get("fixed_input_size") else {}


def _examine(name: str, image_size: int | None) -> tuple[dict[str, Any], bool]:
    """Return what timm knows of the model, and whether it has stochastic depth, before any weight is fetched."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.3)
        raise UserError(f"timm:{name} is no timm model.\nClose names: {', '.join(close)}; all: timm.list_models().")
    with torch.device("meta"):
        try:
            facts = _facts(timm.create_model(name))
        except RuntimeError as error:  # a known model, but not the tag after its dot
            tags = timm.list_pretrained(f"{name.split('.')[0]}.*")
            raise UserError(f"timm:{name}: {error}\nPublished: {', '.join(tags) or 'nothing'}.") from error
        size = image_size or facts["input_size"][-1]
        try:
            network: Any = timm.create_model(name, **_arguments(facts, size)).eval()
            features = network.forward_features(torch.zeros(1, 3, size, size))
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            raise UserError(
                f"timm:{name} does not take images of 3 x {size} x {size}: {error}\nLeave image_size out for its own."
            ) from error
        if not isinstance(features, Tensor):
            raise UserError(
                f"timm:{name} has several feature maps where one is expected.\nChoose another architecture."
            )
        try:
            timm.create_model(name, drop_path_rate=0.1)
        except TypeError:
            return facts, False
    return facts, True


def _from_timm(name: str, arguments: dict[str, Any], facts: dict[str, Any]) -> tuple[nn.Module, str]:
    try:
        network = timm.create_model(name, pretrained=True, **arguments)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"timm:{name}: timm could not load weights: {_shortened(error)}\n"
            f"Check the name's weight tag and the network, or give a file as timm:{name}@FILE."
        ) from error
    return network, f"{name}, weights of timm ({facts.get('tag') or 'default'})"


def _from_file(name: str, path: Path, arguments: dict[str, Any], facts: dict[str, Any]) -> tuple[nn.Module, str]:
    weights = read_weights(path, ENTRIES)
    layers = facts.get("classifier") or ()
    layers = [layers] if isinstance(layers, str) else list(layers)
    classes = [len(weights[f"{layer}.weight"]) for layer in layers if f"{layer}.weight" in weights]
    overlay = {
        "state_dict": weights,
        "num_classes": classes[0] if classes else 0,  # so that timm sees no reason to be lenient
        "label_offset": 0,
        "custom_load": False,
    }
    shapes = {key: value.shape for key, value in weights.items()}
    try:
        network: Any = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=overlay["num_classes"], **arguments
        )
    except (RuntimeError, LookupError, AttributeError, ValueError, TypeError) as error:  # of the filter or the check
        raise UserError(f"The weights in {path} are not those of {name}: {_shortened(error)}") from error
    del network.pretrained_cfg["state_dict"]  # timm keeps a second copy there
    own = network.state_dict()
    resampled = sorted(key for key, shape in shapes.items() if key in own and own[key].shape != shape)
    description = f"{name}, weights of {path}"
    return network, description + (f", resampled by timm: {', '.join(resampled)}" if resampled else "")


def _strictness(name: str) -> dict[str, bool]:
    """Return the argument that makes timm check every key; by itself it is lenient with some families.

    Raises:
        UserError: The model's family cannot be loaded with a check.
    """
    try:
        with torch.device("meta"):
            timm.create_model(name, pretrained_strict=True)
    except TypeError as error:
        if timm.models.is_model_in_modules(name.split(".")[0], _STRICT_BY_THEMSELVES):
            return {}
        raise UserError(
            f"timm:{name} is loaded by timm without a check of its weights.\nChoose another architecture."
        ) from error
    return {"pretrained_strict": True}


def _shortened(error: Exception, length: int = 2000) -> str:
    return str(error) if len(str(error)) <= length else f"{str(error)[:length]} ..."
