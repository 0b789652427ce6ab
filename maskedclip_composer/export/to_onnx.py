"""Export to ONNX: one file for images and one for texts, which onnxruntime runs without torch and without us."""

import importlib.util
import json
import os
import warnings
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from transformers.tokenization_utils_fast import PreTrainedTokenizerFast

from maskedclip_composer.errors import UserError
from maskedclip_composer.export.golden import Golden
from maskedclip_composer.export.source import Source
from maskedclip_composer.export.targets import LibraryError
from maskedclip_composer.export.to_hugging_face import compared
from maskedclip_composer.use.dual_tower import DualTower
from maskedclip_composer.use.tokenizer import Tokenizer as TextTokenizer

FORMAT = "maskedclip-onnx-1"
IMAGE, TEXT, TOKENIZER, CONFIG = "image.onnx", "text.onnx", "tokenizer.json", "config.json"
WITH_TEXTS = True
OPSET = 17
# A protobuf message ends at 2 GiB: larger weights go into a file beside the graph, which onnxruntime finds by itself.
LARGEST = 2**31 - 2**24
# Shapes that Python compares or prints, the same for all inputs; constants; torch 2.7's use of its own old names.
_EXPECTED: tuple[tuple[type[Warning], str], ...] = (
    (TracerWarning, r"maskedclip_composer\.models\.vit$"),
    (TracerWarning, r"torch(\._tensor)?$"),
    (TracerWarning, r"transformers\.modeling_attn_mask_utils$"),
    (DeprecationWarning, r"torch\.onnx\.utils$"),
)


class _ImageTower(nn.Module):
    def __init__(self, model: DualTower):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.model.encode_both(images) if self.model.has_texts else self.model.encode_features(images)


class _TextTower(nn.Module):
    def __init__(self, model: DualTower):
        super().__init__()
        self.model = model

    def forward(self, text_ids: Tensor, text_mask: Tensor) -> Tensor:
        return self.model.encode_text(text_ids, text_mask)


def require() -> None:
    """Check that the libraries are there.

    Raises:
        LibraryError: They are not.
    """
    absent = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if absent:
        raise LibraryError(f"ONNX needs {' and '.join(absent)}.\nInstall: pip install 'maskedclip-composer[onnx]'")


def write(source: Source, folder: Path) -> list[str]:
    """Write both graphs, the tokenizer and a config; return notes for the user."""
    require()
    architecture, model = source.architecture, source.model
    outputs = ["features", "image_features"] if model.has_texts else ["features"]
    # The trace is of two images, for a size of one can be taken for a constant.
    images = torch.zeros(2, 3, architecture.image_size, architecture.image_size, dtype=torch.uint8)
    _trace(_ImageTower(model), {"images": images}, outputs, {"images": {0: "images"}}, folder / IMAGE)
    config: dict[str, Any] = {
        "format": FORMAT,
        "image": {
            "file": IMAGE,
            "size": architecture.image_size,
            "inputs": {"images": f"uint8 [n, 3, {architecture.image_size}, {architecture.image_size}], RGB"},
            "outputs": outputs,
        },
        "text": None,
        "recipe": asdict(architecture.recipe),
        "recipe_known": architecture.recipe_known,
    }
    if architecture.texts is not None:
        assert source.tokenizer is not None
        tokens = source.tokenizer(["fundus photograph", "glaucoma"])
        save_tokenizer(source.tokenizer, folder)
        axes = {name: {0: "texts", 1: "tokens"} for name in tokens}
        _trace(_TextTower(model), tokens, ["text_features"], axes, folder / TEXT)
        config["text"] = {
            "file": TEXT,
            "inputs": dict.fromkeys(tokens, "int64 [n, tokens]"),
            "outputs": ["text_features"],
            "max_tokens": architecture.texts.max_tokens,
            "logit_scale": model.logit_scale,
        }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    return []


def save_tokenizer(tokenizer: TextTokenizer, folder: Path) -> None:
    """Write the file that the library tokenizers reads; it cuts and pads by itself, as the tokenizer did when called.

    Raises:
        UserError: The tokenizer is written in Python and has no such file.
    """
    own = tokenizer.tokenizer
    if not isinstance(own, PreTrainedTokenizerFast):
        raise UserError(
            f"--to onnx: {type(own).__name__} is no fast tokenizer, so it has no file for the library tokenizers.\n"
            "Train with a fast one, or use --to hf."
        )
    own.backend_tokenizer.save(str(folder / TOKENIZER))


def _trace(
    module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], axes: dict[str, dict[int, str]], path: Path
) -> None:
    import onnx

    first = next(iter(axes.values()))[0]
    weights = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    with TemporaryDirectory(dir=path.parent) as aside, warnings.catch_warnings():
        for category, module_name in _EXPECTED:
            warnings.filterwarnings("ignore", category=category, module=module_name)
        traced = Path(aside, path.name)
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            str(traced),  # torch 2.7 puts large weights beside a str alone, not beside a Path
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes=axes | {name: {0: first} for name in outputs},
            opset_version=OPSET,
            dynamo=False,
        )
        if weights > LARGEST:  # torch has then put every tensor into a file of its own
            onnx.save_model(onnx.load(traced), path, save_as_external_data=True, location=f"{path.name}.data")
        else:
            os.replace(traced, path)
    onnx.checker.check_model(path)


def recompute(folder: Path, golden: Golden) -> dict[str, Tensor]:
    """Return the outputs of onnxruntime for the golden inputs, by loader and name."""
    require()
    import onnxruntime
    from tokenizers import Tokenizer

    def run(file: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        values = session.run(names, {name: value.numpy() for name, value in inputs.items()})
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

    image = run(IMAGE, {"images": golden.inputs["images"]})
    found = {"onnxruntime: features": image["features"]}
    if golden.prompts:
        settings = json.loads((folder / CONFIG).read_text())["text"]
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        encoded = tokenizer.encode_batch(list(golden.prompts))
        tokens = {
            "text_ids": torch.tensor([text.ids for text in encoded]),
            "text_mask": torch.tensor([text.attention_mask for text in encoded]),
        }
        found |= {f"tokenizer: {name}": value for name, value in tokens.items()}
        text = run(TEXT, tokens)["text_features"]
        found |= compared(image["image_features"], text, settings["logit_scale"], "onnxruntime")
    return found
