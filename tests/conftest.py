"""Fixtures of the whole suite. No test reaches the network."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub reads it: a missing name then fails at once

from jaxtyping import install_import_hook

# Before anything imports them: under pytest, calls that break a signature's shapes fail.
install_import_hook(
    [
        "maskedclip_composer.losses",
        "maskedclip_composer.models.masking",
        "maskedclip_composer.evaluation.metrics",
        "maskedclip_composer.evaluation.statistics",
    ],
    "beartype.beartype",
)

import pytest  # noqa: E402
import torch  # noqa: E402

from maskedclip_composer.models.vit import ImageEncoder  # noqa: E402
from maskedclip_composer.types import Batch  # noqa: E402
from tests import tiny  # noqa: E402
from tests.s3 import BUCKET, environment, s3_server  # noqa: E402

if TYPE_CHECKING:
    from tests.saved_suite import SavedSuite


def pytest_configure(config: pytest.Config):
    # Exactness is promised on a CPU, and two ranks need two devices: only `-m gpu` sees a GPU.
    if "gpu" not in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]):
    """Leave the benchmarks' scripts to `make bench`: they take minutes, and no user's result depends on them."""
    left_out = [item for item in items if item.get_closest_marker("benchmark")]
    if left_out and "benchmark" not in config.option.markexpr and len(left_out) < len(items):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("benchmark")]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """The tensors are tiny: threads only wait for each other, and the cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def image_encoder() -> ImageEncoder:
    """32 pixels, patches of 8, 64 wide, 2 heads."""
    return tiny.image_encoder()


@pytest.fixture(scope="session")
def text_tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BERT of two layers, 32 wide, and its tokenizer, as transformers saves them."""
    return tiny.save_text_tower(tmp_path_factory.mktemp("text_tower"))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, text_tower: Path) -> Path:
    """A run of MaskedCLIP at 32 pixels as training leaves it (`tests/model_run.py`)."""
    from tests.model_run import write_run  # imports Composer

    return write_run(tmp_path_factory.mktemp("model_runs"), text_tower)


@pytest.fixture(scope="session")
def saved_suite(tmp_path_factory: pytest.TempPathFactory) -> "SavedSuite":
    """A small suite of `evaluate.py` whose classifiers are saved. Read only."""
    from tests.saved_suite import run_saved_suite  # imports Composer

    return run_saved_suite(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def batch() -> Batch:
    """Four pairs, two of which share a label, and four images without text."""
    return tiny.batch(pairs=4, unpaired=4)


@pytest.fixture
def bucket(monkeypatch):
    """The address of an empty bucket of an S3 server on this machine."""
    pytest.importorskip("moto.server", reason="moto[server] is not installed", exc_type=ImportError)
    import boto3

    with s3_server() as url:
        for name, value in environment(url).items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=url)
        client.create_bucket(Bucket=BUCKET)
        yield client
