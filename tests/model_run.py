"""A run folder as training leaves it, of a network with fresh weights: tests of what comes after need no training."""

from pathlib import Path

import torch
from composer.utils import reproducibility

from maskedclip_composer.build import build_model
from maskedclip_composer.config import TrainConfig, to_yaml
from maskedclip_composer.config_file import load_config
from maskedclip_composer.export.encoder import save_encoder

TRAIN = """
run_name: {name}
output: {output}
data:
  {streams}
  image_size: 32
  max_tokens: 24
image_encoder: {{name: vit_tiny_patch16_224, patch_size: 8, depth: 2}}
bridge: {{depth: {bridge}}}
text_encoder: {{name: {text}}}
mask_ratio: 0.75
objectives: {objectives}
trainer: {{max_duration: 1ep}}
"""
MIM = "mim: {dim: 32, depth: 1, num_heads: 2}"
RECIPES = {
    "maskedclip": (
        "{mim: {dim: 32, depth: 1, num_heads: 2}, lg_clip: {embed_dim: 16}, mfd: {dim: 32, num_heads: 2}}",
        1,
    ),
    "mae": (f"{{{MIM}}}", 0),
    "mlip": (f"{{{MIM}, integrity_clip: {{embed_dim: 16}}}}", 0),
}


def write_run(output: Path, text_tower: Path, recipe: str = "maskedclip") -> Path:
    """Write config, newest checkpoint and encoder of a run named after its recipe; return its folder."""
    objectives, bridge = RECIPES[recipe]
    streams = "unpaired: {local: shards/unpaired, batch_size: 4}"
    if "clip" in objectives:
        streams += "\n  paired: {local: shards/paired, batch_size: 4}"
    folder = output / recipe
    (folder / "checkpoints").mkdir(parents=True)
    file = folder / "config.yaml"
    words = {"name": recipe, "output": output, "streams": streams, "text": text_tower}
    file.write_text(TRAIN.format(**words, objectives=objectives, bridge=bridge))
    config = load_config(TrainConfig, str(file), [])
    file.write_text(to_yaml(config))
    reproducibility.seed_all(5)
    model = build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and class token start alike, which hides what is mixed up
            parameter += 0.02 * torch.randn_like(parameter)
    torch.save({"state": {"model": model.state_dict()}}, folder / "checkpoints" / "latest-rank0.pt")
    encoder = model.net.branch.image_encoder
    save_encoder(
        folder / "encoder.safetensors", encoder.vit, name=config.image_encoder.name, image_size=32, patch_size=8
    )
    return folder
