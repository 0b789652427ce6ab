"""Export to a folder in the manner of the Hugging Face hub: the whole model, and its towers for transformers."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from maskedclip_composer.export.exact import listed
from maskedclip_composer.export.golden import Golden
from maskedclip_composer.export.hugging_face_vit import to_hugging_face, why_not
from maskedclip_composer.export.source import Source
from maskedclip_composer.models.text import TextEncoderConfig, build_text_encoder
from maskedclip_composer.use.load import TEXT_FOLDER, WEIGHTS, load

IMAGE_FOLDER, CONFIG, PREPROCESSOR = "image_encoder", "config.json", "preprocessor_config.json"
WITH_TEXTS = True


def write(source: Source, folder: Path) -> list[str]:
    """Write the folder; return notes for the user."""
    architecture, model, notes = source.architecture, source.model, []
    texts = architecture.texts
    if texts is not None:
        assert source.tokenizer is not None
        assert model.text_encoder is not None
        model.text_encoder.encoder.save_pretrained(folder / TEXT_FOLDER)
        source.tokenizer.tokenizer.save_pretrained(str(folder / TEXT_FOLDER))
        architecture = replace(architecture, texts=replace(texts, source=TEXT_FOLDER))  # not where it was in training
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    # transformers does not know this type of model, and says so; code of ours for it to run is not brought along.
    config = {"model_type": "maskedclip", "architectures": ["DualTower"], **architecture.plain()}
    _write_json(folder / CONFIG, config)
    _write_json(folder / PREPROCESSOR, preprocessor(source))
    vit = model.branch.image_encoder.vit
    if (reason := why_not(vit)) is None:
        to_hugging_face(vit, architecture.image_size).save_pretrained(folder / IMAGE_FOLDER)
        _write_json(folder / IMAGE_FOLDER / PREPROCESSOR, preprocessor(source))
    else:
        notes.append(
            f"{IMAGE_FOLDER}/ is left out: {architecture.image_encoder} has {reason}, unlike transformers' ViTs."
        )
    return notes


def preprocessor(source: Source) -> dict[str, Any]:
    """Return settings of CLIPImageProcessor: the evaluation view of data/transforms.py, as close as PIL comes to it.

    It starts from a prepared photograph: transformers has no step that crops to the retina. `recipe` tells those steps.
    """
    architecture = source.architecture
    size = architecture.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": round(size * 256 / 224)},
        "resample": 3,  # PIL's bicubic
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(architecture.mean),
        "image_std": list(architecture.std),
        "recipe": asdict(architecture.recipe),
        "recipe_known": architecture.recipe_known,
    }


@torch.no_grad()
def recompute(folder: Path, golden: Golden) -> dict[str, Tensor]:
    """Return the outputs of our loader and of transformers for the golden inputs, by loader and name."""
    images = golden.inputs["images"]
    model, _, tokenizer = load(folder)
    found = {"load: features": model.encode_features(images)}
    if (folder / IMAGE_FOLDER).is_dir():
        encoder = image_encoder(folder / IMAGE_FOLDER)
        tokens = encoder(**processed(folder / IMAGE_FOLDER, images)).last_hidden_state
        found[f"{type(encoder).__name__}: features"] = tokens[:, 1:].mean(dim=1)
    if golden.prompts:
        assert tokenizer is not None
        tokens = tokenizer(golden.prompts)
        found |= {f"tokenizer: {name}": value for name, value in tokens.items()}
        found |= compared(model.encode_image(images), model.encode_text(**tokens), model.logit_scale, "load")
        assert model.text_encoder is not None
        # The same model with the text encoder that transformers reads.
        own = TextEncoderConfig(name=str(folder / TEXT_FOLDER), layers=list(model.text_encoder.layers))
        model.text_encoder.encoder = build_text_encoder(own).encoder.eval()
        found["AutoModel: text_features"] = model.encode_text(**tokens)
    return found


def image_encoder(folder: Path) -> Any:
    """Return the image encoder as transformers reads it.

    Raises:
        ValueError: Weights are missing or left over.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    loaded: Any = AutoModel.from_pretrained(
        folder,
        config=config,
        output_loading_info=True,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        **({"add_pooling_layer": False} if config.model_type == "vit" else {}),
    )
    model, report = loaded
    problems = [f"{kind}: {key}" for kind in ("missing_keys", "unexpected_keys") for key in report[kind]]
    if problems:
        raise ValueError(f"{folder} is not whole:\n{listed(problems)}")
    return model.eval()


def processed(folder: Path, images: Tensor) -> Any:
    """Normalise images of the right size as the folder's image processor does."""
    processor = AutoImageProcessor.from_pretrained(
        folder, local_files_only=True, use_fast=False, trust_remote_code=False
    )
    return processor(list(images.numpy()), do_resize=False, do_center_crop=False, return_tensors="pt")


def compared(image: Tensor, text: Tensor, logit_scale: float, loader: str) -> dict[str, Tensor]:
    """Return the outputs of the joint space, by loader and name."""
    logits = logit_scale * image @ text.T
    return {
        f"{loader}: image_features": image,
        f"{loader}: text_features": text,
        f"{loader}: logits": logits,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
