"""Exports of one run, made once, and photographs to compare on."""

import os
from pathlib import Path

import pytest
import torch

import maskedclip_composer
from maskedclip_composer.export.write import export
from tests.data_prep.drawing import retina

TARGETS = ("timm", "hf", "onnx", "safetensors")


@pytest.fixture(scope="session")
def exported(tmp_path_factory, run_folder) -> dict[str, Path]:
    """Folders by target; they are not to be changed."""
    root = tmp_path_factory.mktemp("exported")
    for target in TARGETS:
        assert export(run_folder, target, root / target) == []
    return {target: root / target for target in TARGETS}


@pytest.fixture(scope="session")
def loaded(run_folder):
    return maskedclip_composer.load(run_folder)


@pytest.fixture(scope="session", params=["drawn", pytest.param("real", marks=pytest.mark.real_data)])
def images(request, loaded):
    """Five photographs as the model takes them, [5, 3, 32, 32] uint8."""
    if request.param == "drawn":
        photographs = [retina(160, 120, radius=40 + number) for number in range(5)]
    else:
        if "FUNDUS_DATA" not in os.environ:
            pytest.skip("FUNDUS_DATA does not name the folder of photographs")
        photographs = sorted(Path(os.environ["FUNDUS_DATA"], "unpaired").rglob("*.jpg"))[:200:40]
        assert len(photographs) == 5
    return torch.stack([loaded.transform(photograph) for photograph in photographs])
