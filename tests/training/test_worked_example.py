"""docs/objectives.md, "Adding an objective": its files and lines are all that a new objective takes."""

import importlib.util
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from maskedclip_composer.models.branch import BridgeConfig, ImageBranch
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.text import TextEncoder
from maskedclip_composer.objectives.base import Parts
from maskedclip_composer.objectives.two_tower import TwoTower
from maskedclip_composer.types import Batch
from tests import test_imports, tiny
from tests.training.test_train import lines

ROOT = Path(__file__).parents[2]
PACKAGE = "maskedclip_composer"
PAGE = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(\S+)`:\n\n```(?:python|yaml)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
CHANGES = re.findall(r"^```diff\n (.*?)\n\+(.*?)\n```$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its recipes with the page's files and lines."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in (PACKAGE, "yamls"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", root)
    for name, text in FILES.items():
        assert not (root / name).exists()
        (root / name).write_text(text, encoding="utf-8")
    config = root / PACKAGE / "config.py"
    for before, line in CHANGES:
        assert config.read_text().count(f"\n{before}\n") == 1
        config.write_text(config.read_text().replace(f"\n{before}\n", f"\n{before}\n{line}\n"))
    return root


def load(checkout: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import one of the copy's new files as the module of the package that it would be."""
    spec = importlib.util.spec_from_file_location(name, checkout / (name.replace(".", "/") + ".py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def contents(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): path.read_text() for path in sorted((root / PACKAGE).rglob("*.py"))}


def test_it_takes_two_files_and_two_lines(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    before, after = contents(ROOT), contents(checkout)
    changed = {name for name, text in after.items() if before.get(name) != text}
    new = {f"{PACKAGE}/losses/sigmoid.py", f"{PACKAGE}/objectives/siglip.py"}
    assert before.keys() <= after.keys()
    assert changed == new | {f"{PACKAGE}/config.py"}
    assert set(FILES) == new | {"yamls/pretrain/siglip.yaml"}
    added = [line for line in after[f"{PACKAGE}/config.py"].splitlines() if "iglip" in line]
    assert len(added) == len(CHANGES) == 2
    monkeypatch.setattr(test_imports, "ROOT", checkout)
    test_imports.test_losses_import_torch_and_jaxtyping_alone()
    for area in ("losses", "objectives"):
        test_imports.test_an_area_imports_only_what_lies_below_it(area)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 2]])
def test_its_loss_is_the_papers(checkout: Path, monkeypatch: pytest.MonkeyPatch, labels: list[int]):
    loss = load(checkout, f"{PACKAGE}.losses.sigmoid", monkeypatch).sigmoid_loss
    generator = torch.Generator().manual_seed(3)
    draws = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    images, texts = torch.nn.functional.normalize(draws, dim=-1)
    total = 0.0
    for i, x in enumerate(images.tolist()):
        for j, y in enumerate(texts.tolist()):
            z = 1 if labels[i] == labels[j] else -1
            logit = 7.0 * sum(p * q for p, q in zip(x, y, strict=True)) - 3.0
            total += math.log(1 / (1 + math.exp(-z * logit)))
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (7.0, -3.0))
    arguments = images.requires_grad_(), texts.requires_grad_(), torch.tensor(labels), scale, bias
    assert loss(*arguments).item() == pytest.approx(-total / len(labels), rel=1e-12)
    assert torch.autograd.gradcheck(loss, arguments)


def test_its_objective_trains_all_that_it_has(checkout: Path, monkeypatch: pytest.MonkeyPatch, batch: Batch):
    load(checkout, f"{PACKAGE}.losses.sigmoid", monkeypatch)
    module = load(checkout, f"{PACKAGE}.objectives.siglip", monkeypatch)
    encoder, text_encoder = tiny.image_encoder(), TextEncoder(tiny.bert(), [-1])
    objective = module.SiglipConfig(embed_dim=8).build(Parts(image_encoder=encoder, text_encoder=text_encoder))
    branch = ImageBranch(encoder, BridgeConfig(depth=1), "auto")
    net = PretrainNet(branch, text_encoder, {"siglip": objective}, mask_ratio=0.75, with_teacher=False)
    assert isinstance(objective, TwoTower)
    model = MaskedCLIP(net)
    model.loss(model(batch), batch)["total"].backward()
    assert not [name for name, p in net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]


@pytest.mark.slow
def test_it_trains(checkout: Path, shards: Path, text_tower: Path, tmp_path: Path):
    small = ["image_encoder.name=test_vit", "image_encoder.patch_size=8", "objectives.siglip.embed_dim=32"]
    data = ["data.paired.split=null", "data.paired.batch_size=8", "data.image_size=32", "data.max_tokens=32"]
    steps = ["trainer.max_duration=24ba", "optimizer.warmup=2ba", "optimizer.lr=0.03", "trainer.progress_bar=false"]
    where = [f"data.paired.remote={shards / 'paired'}", f"text_encoder.name={text_tower}", f"output={tmp_path}"]
    more = ["data.num_workers=0", "tracking.mlflow=false"]
    command = [sys.executable, "train.py", "yamls/pretrain/siglip.yaml", *small, *data, *steps, *where, *more]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    losses = lines(tmp_path / "siglip", "loss/train/siglip")
    assert len(losses) == 24
    assert all(map(math.isfinite, losses))
    assert sum(losses[-6:]) < sum(losses[:6])
    assert len(lines(tmp_path / "siglip", "diagnostics/siglip/bias")) > 0
