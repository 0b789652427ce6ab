"""docs/systems.md and docs/objectives.md: files exist, keys are the config's, and losses train what the table says."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.models.pretrain import MaskedCLIP
from tests import tiny

PAGES = {name: Path(f"docs/{name}.md").read_text(encoding="utf-8") for name in ("systems", "objectives")}
ROUTES = dict(re.findall(r"^\| `(\w+)` \| ((?:(?:yes|no)[^|]*\| ){3})", PAGES["systems"], re.MULTILINE))
NAMES = set(re.findall(r"`((?:[a-z_]+\.)+[a-z_]+)(?:=[^`]*)?`", PAGES["systems"]))
KEYS = sorted(name for name in NAMES if not name.endswith(".md"))


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_it_names_exist(page):
    text = PAGES[page].split("## Adding an objective")[0]
    names = set(re.findall(r"`((?:\w+/)+[\w.]*)`", text)) - {"yamls/pretrain/"}
    files = {name for name in names if not name.startswith("diagnostics/")}
    assert len(files) > 10
    for name in files:
        assert (Path(name) if name.startswith("tests/") else Path("maskedclip_composer") / name).exists(), name


@pytest.mark.parametrize("recipe", tiny.RECIPES)
def test_losses_train_what_the_table_says(recipe, batch):
    net = tiny.net(recipe, bridge_depth=1)
    model = MaskedCLIP(net)
    for objective in net.objectives.keys() & ROUTES.keys():
        net.zero_grad(set_to_none=True)
        model.loss(model(batch), batch)[objective].backward()
        names = [name for name, p in net.named_parameters() if p.grad is not None and bool(torch.any(p.grad != 0))]
        expected = [cell.strip().startswith("yes") for cell in ROUTES[objective].split("|")[:3]]
        modules = ("branch.image_encoder.", "branch.bridge.", "text_encoder.")
        assert [any(name.startswith(module) for name in names) for module in modules] == expected, objective
        assert {name.split(".")[1] for name in names if name.startswith("objectives.")} == {objective}
        assert not [name for name in names if name.startswith("teacher.") or "teacher_heads" in name]


def test_the_table_has_all_objectives_but_mfd():
    assert set(ROUTES) == set(tiny.OBJECTIVES) - {"mfd"}


@cache
def settings() -> list[dict]:
    """Return the whole configs of recipes that have every objective and every section of `data`."""
    trees = []
    for recipe in ("mmclip", "mlip", "dinov2", "flair"):
        unpaired = ["data.unpaired.remote=b"] if recipe in ("mmclip", "dinov2") else []
        config = load_config(TrainConfig, f"yamls/pretrain/{recipe}.yaml", ["data.paired.remote=a", *unpaired])
        trees.append(OmegaConf.to_container(OmegaConf.structured(config)))
    return trees


def has(tree: object, path: list[str]) -> bool:
    for name in path:
        if not isinstance(tree, dict) or name not in tree:
            return False
        tree = tree[name]
    return True


@pytest.mark.parametrize("key", KEYS)
def test_its_keys_are_the_configs(key):
    assert any(has(tree, key.split(".")) for tree in settings())
