"""README.md of an exported folder: the run's model card where it has one, and how to load the folder."""

import re

from torch import nn

from maskedclip_composer.export.folder import SUMS
from maskedclip_composer.export.hugging_face_vit import why_not
from maskedclip_composer.export.source import TERMS, Source
from maskedclip_composer.export.to_timm import model_arguments

# FOLDER is the folder itself. Each block runs as it stands; tests run them.
_TIMM = """\
import timm
model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # num_classes=5 for a classifier to train
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
"""
_HF = """\
import maskedclip_composer
model, transform, tokenizer = maskedclip_composer.load("FOLDER")
"""
_HF_VIT = """\
from transformers import AutoImageProcessor, ViTModel
image_encoder = ViTModel.from_pretrained("FOLDER/image_encoder", add_pooling_layer=False)
processor = AutoImageProcessor.from_pretrained("FOLDER/image_encoder", use_fast=False)
"""
_HF_DINOV2 = """\
from transformers import AutoImageProcessor, Dinov2Model
image_encoder = Dinov2Model.from_pretrained("FOLDER/image_encoder")
processor = AutoImageProcessor.from_pretrained("FOLDER/image_encoder", use_fast=False)
"""
_ONNX = """\
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("FOLDER/image.onnx", providers=["CPUExecutionProvider"])
features = session.run(["features"], {"images": np.zeros((1, 3, SIZE, SIZE), np.uint8)})[0]
"""
_SAFETENSORS = """\
import maskedclip_composer
model, transform, _ = maskedclip_composer.load("FOLDER/encoder.safetensors")
"""
_LINES = {"timm": _TIMM, "hf": _HF, "onnx": _ONNX, "safetensors": _SAFETENSORS}
_LIBRARY = {"timm": "timm", "hf": "maskedclip_composer", "onnx": "onnx", "safetensors": "maskedclip_composer"}
_FEATURE = {
    "timm": "The output is the mean of the patch tokens behind the final norm, as in pre-training and evaluation "
    '(`global_pool="avg"`, `fc_norm=False` in config.json).',
    "hf": "`model.encode_image` and `model.encode_text` give features of the joint space; the mean of "
    "`image_encoder(...).last_hidden_state[:, 1:]` is `model.encode_features`.",
    "onnx": "Input `images` is uint8 RGB [n, 3, SIZE, SIZE]: normalisation is in the graph. `features` is the mean of "
    "the patch tokens; `image_features`, where texts were trained, goes with `text_features` of text.onnx.",
    "safetensors": "`model.encode_features` gives the mean of the patch tokens behind the final norm.",
}


def readme(source: Source, to: str, *, has_terms: bool, notes: list[str]) -> str:
    """Return the text.

    Args:
        source: The model.
        to: The target.
        has_terms: Whether TERMS.md is there.
        notes: What the export could not do.
    """
    architecture = source.architecture
    metadata = f"---\nlibrary_name: {_LIBRARY[to]}\ntags: [retina, colour-fundus-photography, maskedclip]\n---\n"
    card = source.card
    head = card or f"{metadata}# {source.name}\n{_other_weights(source)}"
    head = re.sub(r"^library_name: .*$", f"library_name: {_LIBRARY[to]}", head, count=1, flags=re.MULTILINE)
    blocks, vit = [_LINES[to]], source.model.branch.image_encoder.vit
    if to == "hf" and why_not(vit) is None:
        blocks.append(_HF_VIT if isinstance(vit.blocks[0].ls1, nn.Identity) else _HF_DINOV2)
    recipe = architecture.recipe
    crop = "cropped to the retina and " if recipe.crop else ""
    resized = f"resized to a short side of {recipe.size} pixels at most" if recipe.size else "kept at their size"
    preparation = f"were {crop}{resized} before training"
    if not architecture.recipe_known:
        preparation = f"were prepared in a way that the run does not record; taken is the default: {crop}{resized}"
    arguments = ", ".join(f"{name}={value!r}" for name, value in model_arguments(source).items())
    name = architecture.image_encoder.split(".")[0]
    facts = [
        f"Image encoder: `timm.create_model({name!r}, num_classes=0, {arguments})`.",
        f"Images: {architecture.image_size} pixels; mean {list(architecture.mean)}, deviation {list(architecture.std)} "
        "of values of 0 to 1.",
        f"Photographs {preparation}. The transform that `maskedclip_composer.load` returns does the same; other "
        "libraries start from prepared photographs.",
        _FEATURE[to],
        *notes,
        *([f"Terms of the training data: {TERMS}."] if has_terms else []),
        "Files and outputs are checked by `python -m maskedclip_composer verify FOLDER`, files alone by "
        f"`sha256sum --check {SUMS}`.",
        *(["All below is the run's card: other files that it names are in the run's folder."] if card else []),
        "For research; not for use on patients.",
    ]
    loading = ["## Load this folder", *(f"```python\n{block}```" for block in blocks)]
    loading.append("\n".join(f"- {fact}" for fact in facts))
    text = "\n\n".join(loading).replace("SIZE", str(architecture.image_size))
    begin, section, rest = head.rstrip().partition("\n## ")  # before the card's first section
    return f"{begin.rstrip()}\n\n{text}\n{section}{rest}".rstrip() + "\n"


def _other_weights(source: Source) -> str:
    """Say of which checkpoint the weights are, where they are not those of the run's encoder file."""
    if source.checkpoint is None or source.is_encoder_of_run:
        return ""
    step = re.search(r"-ba(\d+)", source.checkpoint)
    told = f"\nWeights of the checkpoint `{source.checkpoint}`" + (f", step {int(step[1]):,}.\n" if step else ".\n")
    if source.has_card:
        told += "The run's model card is left out: it tells of encoder.safetensors, and these are other weights.\n"
    return told
