"""docs/objectives.md, "Adding an objective": its files and lines are all that a new objective takes."""

import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import test_imports
from tests.training.test_train import lines

ROOT = Path(__file__).parents[2]
PACKAGE = "maskedclip_composer"
PAGE = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(\S+)`:\n\n```(?:python|yaml)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
CHANGES = re.findall(r"^```diff\n (.*?)\n\+(.*?)\n```$", PAGE, re.MULTILINE)

COMPARISON = """
import math, sys
import torch
import maskedclip_composer
from maskedclip_composer.losses.sigmoid import sigmoid_loss
from maskedclip_composer.objectives.siglip import Siglip, SiglipConfig
from maskedclip_composer.objectives.two_tower import TwoTower

assert maskedclip_composer.__file__.startswith(sys.argv[1])
assert isinstance(Siglip(SiglipConfig(), 4, 6), TwoTower)
generator = torch.Generator().manual_seed(3)
images, texts = torch.nn.functional.normalize(torch.randn(2, 5, 4, generator=generator, dtype=torch.float64), dim=-1)
images.requires_grad_()
t, b = torch.tensor(7.0, dtype=torch.float64), torch.tensor(-3.0, dtype=torch.float64)
for labels in ([0, 1, 2, 3, 4], [0, 1, 0, 2, 2]):
    total = 0.0
    for i, x in enumerate(images.tolist()):
        for j, y in enumerate(texts.tolist()):
            z = 1 if labels[i] == labels[j] else -1
            logit = 7.0 * sum(p * q for p, q in zip(x, y, strict=True)) - 3.0
            total += math.log(1 / (1 + math.exp(-z * logit)))
    arguments = images, texts, torch.tensor(labels), t, b
    assert math.isclose(sigmoid_loss(*arguments).item(), -total / len(labels), rel_tol=1e-12)
    assert torch.autograd.gradcheck(sigmoid_loss, arguments)
"""


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


def python(checkout: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=checkout, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


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


@pytest.mark.slow
def test_its_loss_is_the_papers(checkout: Path):
    python(checkout, "-c", COMPARISON, str(checkout))


@pytest.mark.slow
def test_it_trains(checkout: Path, shards: Path, text_tower: Path, tmp_path: Path):
    small = ["image_encoder.name=test_vit", "image_encoder.patch_size=8", "objectives.siglip.embed_dim=32"]
    data = ["data.paired.split=null", "data.paired.batch_size=8", "data.image_size=32", "data.max_tokens=32"]
    steps = ["trainer.max_duration=24ba", "optimizer.warmup=2ba", "optimizer.lr=0.03", "trainer.progress_bar=false"]
    where = [f"data.paired.remote={shards / 'paired'}", f"text_encoder.name={text_tower}", f"output={tmp_path}"]
    more = ["data.num_workers=0", "tracking.mlflow=false"]
    python(checkout, "train.py", "yamls/pretrain/siglip.yaml", *small, *data, *steps, *where, *more)
    losses = lines(tmp_path / "siglip", "loss/train/siglip")
    assert len(losses) == 24
    assert all(map(math.isfinite, losses))
    assert sum(losses[-6:]) < sum(losses[:6])
    assert len(lines(tmp_path / "siglip", "diagnostics/siglip/bias")) > 0
