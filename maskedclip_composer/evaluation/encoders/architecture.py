"""An encoder of the evaluation built again from its description, without the file that its weights came from."""

from collections.abc import Mapping
from typing import Any

import timm
from timm.models import VisionTransformer
from transformers import AutoConfig, AutoModel

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders import facebook
from maskedclip_composer.evaluation.encoders.base import Encoder
from maskedclip_composer.evaluation.encoders.hugging_face import HuggingFaceEncoder
from maskedclip_composer.evaluation.encoders.timm_model import TimmEncoder, remove_head
from maskedclip_composer.evaluation.encoders.vit import ViTEncoder
from maskedclip_composer.models.attention import use_backend
from maskedclip_composer.models.vit import build_vit

# A file may come from anybody, and timm takes arguments that read other files.
_FACEBOOK = {"img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "init_values"}
_FACEBOOK |= {"gated", "reg_tokens", "no_embed_class"}


def build_encoder(
    architecture: Mapping[str, Any], *, mean: tuple[float, ...], std: tuple[float, ...], description: str
) -> Encoder:
    """Build what `Encoder.architecture` describes, with fresh weights.

    Args:
        architecture: Plain values.
        mean: Per channel, in units of 0 to 1; images are normalised with it.
        std: Likewise.
        description: Where its weights are going to come from.

    Raises:
        UserError: It is of no known kind, or of another version's.
    """
    given = dict(architecture)
    common: dict[str, Any] = {"mean": mean, "std": std, "description": description}
    try:
        kind = given["kind"]
        if kind == "own":
            vit = build_vit(given["name"], given["image_size"], given["patch_size"], given["depth"])
            use_backend(vit, "auto")
            return ViTEncoder(module=vit, image_size=given["image_size"], architecture=given, **common)
        if kind == "facebook":
            _allow_only(_FACEBOOK, given["arguments"])
            vit = facebook.build_vit(given["arguments"], fc_norm=given["fc_norm"])
            return ViTEncoder(module=vit, image_size=given["arguments"]["img_size"], architecture=given, **common)
        if kind == "timm":
            return _timm(given, common)
        if kind == "hugging_face":
            return _hugging_face(given, common)
    except (KeyError, TypeError) as error:
        raise UserError(f"{description}: its architecture cannot be read ({error!r}).\nIs it damaged?") from error
    raise UserError(f"{description}: its architecture is of the unknown kind {given.get('kind')!r}.")


def _timm(given: dict[str, Any], common: dict[str, Any]) -> Encoder:
    _allow_only({"img_size"}, given["arguments"])
    if not timm.is_model(given["name"]):  # timm would also fetch what is named by an address
        raise UserError(f"{common['description']}: {given['name']} is no timm model that this version knows.")
    network = remove_head(timm.create_model(given["name"], **given["arguments"]))
    if type(network) is VisionTransformer:
        return ViTEncoder(module=network, image_size=given["image_size"], architecture=given, **common)
    known = {key: given[key] for key in ("name", "arguments", "stochastic_depth", "image_size")}
    return TimmEncoder(module=network, **known, **common)


def _hugging_face(given: dict[str, Any], common: dict[str, Any]) -> Encoder:
    settings = dict(given["config"])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    model: Any = AutoModel.from_config(config, trust_remote_code=False)
    module = getattr(model, "vision_model", model)
    if getattr(module, "pooler", None) is not None and list(module.pooler.parameters()):
        module.pooler = None
    known = {key: given[key] for key in ("num_prefix_tokens", "options", "image_size")}
    return HuggingFaceEncoder(module=module, **known, **common)


def _allow_only(known: set[str], arguments: Mapping[str, Any]) -> None:
    strangers = set(arguments) - known
    if strangers:
        raise KeyError(*sorted(strangers))
