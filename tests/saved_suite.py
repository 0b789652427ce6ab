"""A small suite whose classifiers are saved: one label and several, a linear probe and fine-tuning."""

from dataclasses import dataclass
from pathlib import Path

import pytest

import evaluate
from maskedclip_composer.evaluation import suite
from maskedclip_composer.evaluation.cells import Cell, Outcome, load_outcomes, model_folder
from maskedclip_composer.export.encoder import load_encoder, save_encoder
from maskedclip_composer.report import write
from tests.evaluation.conftest import TINY, write_grades, write_several

ROOT = Path(__file__).parents[1]
FAST = "finetune: {epochs: 2, warmup_epochs: 1, batch_size: 12, lr: 1.0e-3, layer_decay: 0.9, drop_path: 0.0}\n"


@dataclass(frozen=True)
class SavedSuite:
    """Its folder, its encoder and its data by task, and its cells by task and protocol."""

    folder: Path
    encoder: Path
    data: dict[str, Path]
    cells: dict[tuple[str, str], tuple[Cell, Outcome]]

    def model(self, task: str, protocol: str) -> Path:
        """Return the folder of a classifier."""
        return self.folder / model_folder(self.cells[task, protocol][0])


def run_saved_suite(root: Path) -> SavedSuite:
    """Evaluate one encoder on `grades` and on `several`, by linear_probe and `fast`, without pictures and report."""
    encoder = root / "encoder.safetensors"
    save_encoder(encoder, load_encoder(TINY, image_size=32).vit, name=TINY[7:], image_size=32, patch_size=16)
    (root / "fast.yaml").write_text(f"title: Fast\nsource: tests\n{FAST}")
    data = {"grades": write_grades(root / "grades"), "several": write_several(root / "several")}
    for name, kind in (("grades", "ordinal"), ("several", "multilabel")):
        (root / f"{name}.yaml").write_text(f"title: {name}\ndata: {data[name]}\nkind: {kind}\n")
    arguments = [
        str(ROOT / "yamls" / "evaluate.yaml"),
        f"checkpoints.mine={encoder}",
        f"tasks=[{root / 'grades.yaml'},{root / 'several.yaml'}]",
        f"protocols=[linear_probe,{root / 'fast.yaml'}]",
        "fractions=[1.0]",
        "seeds=1",
        "batch_size=16",
        "workers=0",
        f"output={root / 'runs'}",
        "run_name=s",
        "save_models=true",
        "tracking.mlflow=false",
    ]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(write, "write_report", lambda folder, **options: folder / "report.html")
        monkeypatch.setattr(suite, "save_pictures", lambda *arguments: None)
        assert evaluate.main(arguments) == 0
    folder = root / "runs" / "s"
    cells = {(cell.task, cell.protocol): (cell, outcome) for cell, outcome in load_outcomes(folder)}
    return SavedSuite(folder, encoder, data, cells)
